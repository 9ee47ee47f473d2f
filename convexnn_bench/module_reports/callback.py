"""Certify a network every few epochs of its training."""

from typing import TYPE_CHECKING, Any

import torch

from convexnn_bench.certificates import relative_gap, rounded
from convexnn_bench.checks import Array
from convexnn_bench.errors import InputError
from convexnn_bench.house_style import GREEN, ORANGE, style
from convexnn_bench.losses import BaseLoss
from convexnn_bench.module_reports.certifying import certify_module
from convexnn_bench.module_reports.module_report import ModuleReport
from convexnn_bench.plugins import LIMIT, YES_OR_NO, Whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CertifyCallback:
    """Certify a network every few epochs, and stop when its gap is small enough.

    In a plain loop call it after each epoch; it returns True when training may stop. `on_train_epoch_end` does the same
    for trainers that call their callbacks by that name, and `lightning()` returns it as a callback of Lightning.

    Parameters
    ----------
    X, Y, loss, weight_decay
        As for `certify_module`. X and Y are all training data, since the objective is a sum over them. With neither
        `weight_decay` nor `optimizer` the parameter groups of a trainer's optimiser are read.
    every : int
        Epochs between two certificates.
    gap : float, optional
        Relative gap at which training may stop. None to go on.
    network : str, optional
        Name of the submodule that is certified. None for the module itself.
    show : bool
        Print a line for each certificate.
    **options
        Further arguments of `certify_module`, such as `reduction`, `bias_decay` or `time_limit`.

    Attributes
    ----------
    curve : list of (int, float, float)
        Epoch, objective, and the largest lower bound so far. All bounds are on the same problem, so that the largest
        holds for every epoch.
    report : ModuleReport or None
        The last report.

    Raises
    ------
    InputError
        An argument is not allowed. Those of `certify_module` are checked at the first certificate.

    Examples
    --------
    >>> import numpy as np, torch
    >>> X, y = torch.randn(20, 2).double(), torch.ones(20, 1).double()
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)).double()
    >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.01, weight_decay=0.1)
    >>> callback = CertifyCallback(X, y, torch.nn.MSELoss(reduction="sum"), optimizer=optimizer, every=2, show=False)
    >>> for epoch in range(1, 5):
    ...     optimizer.zero_grad()
    ...     torch.nn.MSELoss(reduction="sum")(module(X), y).backward()
    ...     optimizer.step()
    ...     if callback(module, epoch):
    ...         break
    >>> [epoch for epoch, objective, bound in callback.curve]
    [2, 4]
    """

    def __init__(
        self,
        X: Array,
        Y: Array,
        loss: str | BaseLoss | torch.nn.Module = "squared",
        weight_decay: Any = None,
        *,
        every: int = 10,
        gap: float | None = None,
        network: str | None = None,
        show: bool = True,
        **options: Any,
    ):
        self.every: int = Whole().check("every", every)
        self.gap: float | None = LIMIT.check("gap", gap)
        self.show: bool = YES_OR_NO.check("show", show)
        self.network, self._data, self._loss = network, (X, Y), loss
        self._options = {"weight_decay": weight_decay, "progress": False, **options}
        self.curve: list[tuple[int, float, float]] = []
        self.report: ModuleReport | None = None

    def __call__(self, module: torch.nn.Module, epoch: int) -> bool:
        """Certify the module if its epoch, counted from one, is a multiple of `every`.

        Parameters
        ----------
        module : torch.nn.Module
            The network in training. It is not changed.
        epoch : int
            The number of epochs that it was trained for.

        Returns
        -------
        bool
            Whether the gap has reached the target, so that training may stop.
        """
        if Whole(low=0).check("epoch", epoch) % self.every or epoch == 0:
            return False
        return self._certified(module, epoch, {})

    def _certified(self, module: torch.nn.Module, epoch: int, options: dict[str, Any]) -> bool:
        # 1. The objective, and the largest of all bounds so far.
        report = certify_module(self._part(module), *self._data, self._loss, **{**self._options, **options})
        bound = max([report.dual, *(earlier for _, _, earlier in self.curve)])
        self.report = report
        self.curve.append((epoch, report.primal, bound))
        # 2. Their distance.
        gap = relative_gap(report.primal, bound)
        if self.show:
            print(f"epoch {epoch}: objective {report.primal:.6g}, optimum at least {bound:.6g}, {_words(gap, bound)}")
        return self.gap is not None and bound > 0 and gap <= self.gap

    def _part(self, module: torch.nn.Module) -> torch.nn.Module:
        if self.network is None:
            return module
        found = dict(module.named_modules()).get(self.network)
        if found is None:
            names = ", ".join(repr(name) for name, _ in module.named_children()) or "none"
            raise InputError(f"network must be the name of a submodule, such as {names}, got {self.network!r}")
        return found

    # -- trainers -----------------------------------------------------------------------------------------

    def on_train_epoch_end(self, trainer: Any, pl_module: torch.nn.Module) -> None:
        """Certify a trainer's module after the epoch `trainer.current_epoch`, from zero.

        `trainer.should_stop` becomes True when the target is reached.
        """
        epoch = int(trainer.current_epoch) + 1
        if epoch % self.every:
            return
        given: dict[str, Any] = {}
        if self._options["weight_decay"] is None and self._options.get("optimizer") is None:
            given["optimizer"] = next(iter(getattr(trainer, "optimizers", [])), None)
        if self._certified(pl_module, epoch, given):
            trainer.should_stop = True

    def lightning(self) -> Any:
        """Return this callback as a `Callback` of Lightning, which is imported here.

        Raises
        ------
        InputError
            Neither lightning nor pytorch_lightning is installed.
        """
        try:
            from lightning.pytorch import Callback
        except ImportError:
            try:
                from pytorch_lightning import Callback
            except ImportError:
                raise InputError("lightning() needs PyTorch Lightning: pip install lightning") from None
        own = self

        class LightningCertify(Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                own.on_train_epoch_end(trainer, pl_module)

        return LightningCertify()

    # -- the curve ----------------------------------------------------------------------------------------

    def plot(self) -> "Figure":
        """Return a figure of the objective and the bound against the epoch.

        Raises
        ------
        InputError
            Nothing was certified yet.
        """
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        if not self.curve:
            raise InputError("the curve is empty: nothing was certified yet")
        epochs, objectives, bounds = zip(*self.curve, strict=True)
        settings: Any = style()
        with mpl.rc_context(settings):
            figure = Figure(figsize=(6.4, 3.6), layout="constrained")
            FigureCanvasAgg(figure)
            axis = figure.subplots()
            axis.fill_between(epochs, bounds, objectives, color=ORANGE, alpha=0.3, linewidth=0, label="optimum")
            axis.plot(epochs, objectives, "o-", color=GREEN, markersize=3.5, label="objective")
            axis.plot(epochs, bounds, "o-", color=ORANGE, markersize=3.5, label="lower bound")
            axis.set_xlabel("epoch")
            axis.set_ylabel("training objective")
            axis.legend(frameon=False)
        return figure


def _words(gap: float, bound: float) -> str:
    if not bound > 0:
        return "no percentage, since the bound is not positive"
    return f"at most {rounded(100 * gap, 2, 'ROUND_CEILING')} % above it"
