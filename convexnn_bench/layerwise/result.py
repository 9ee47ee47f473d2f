"""The outcome of a training stage by stage."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convexnn_bench.layerwise.network import LayerwiseNetwork

if TYPE_CHECKING:
    import pandas as pd

Epoch = dict[str, Any]  # one entry of the history, see LayerwiseResult


@dataclass
class LayerwiseResult:
    """A network trained stage by stage, and how the training went.

    Attributes
    ----------
    network : LayerwiseNetwork
        The trained stages.
    history : list of dict
        One dictionary for every epoch: stage (1, 2, ...), epoch, seconds (of training, in this stage), n, P, p, q, m,
        beta, beta_max. Epochs with a certificate also have objective, lower_bound (the best so far), gap,
        stationarity_bound, stationarity_error, max_dual_norm, gradient_norm (None in blocks), train_accuracy,
        test_accuracy and ensemble_accuracy (of the stages so far); the last two are None without test data.
    """

    network: LayerwiseNetwork
    history: list[Epoch] = field(default_factory=list)

    def to_frame(self) -> "pd.DataFrame":
        """Return the history, one row for each epoch."""
        import pandas as pd

        return pd.DataFrame(self.history)

    @property
    def stages(self) -> list[Epoch]:
        """The last epoch of every stage."""
        return [epoch for epoch, after in zip(self.history, [*self.history[1:], None], strict=True)
                if after is None or after["stage"] != epoch["stage"]]  # fmt: skip
