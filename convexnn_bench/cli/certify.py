"""The command `convexnn-bench certify`: a certificate for a trained network in a file."""

import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from convexnn_bench.cli.common import PluginsDir, plain_errors
from convexnn_bench.cli.model_file import check_arguments


def certify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL.pt",
            help="State dict, torch.save(model.state_dict(), ...), or a checkpoint with one. No code in it is run.",
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Samples and targets in a .npz, .npy, .csv, .data, .txt or .tsv file, or 'file[path=DATA,...]' with "
            "parameters of that data set, such as target=price, drop=id, header=no, scale=255 or standardize=true.",
        ),
    ],
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Weight decay of training: lam/2 ||w||^2, as torch's SGD and Adam add it to the loss."),
    ] = None,
    weight_decay_first: Annotated[
        float | None,
        typer.Option(help="Weight decay of the first layer, if the layers had different ones: in place of the above."),
    ] = None,
    weight_decay_second: Annotated[float | None, typer.Option(help="Weight decay of the second layer.")] = None,
    bias_decay: Annotated[
        bool,
        typer.Option(
            help="Whether weight decay applied to the biases of the first layer, as in torch by default, and not in "
            "scikit-learn and Keras."
        ),
    ] = True,
    loss: Annotated[str, typer.Option(help="Loss of the training, such as cross_entropy or 'huber[delta=0.5]'.")] = (
        "squared"
    ),
    reduction: Annotated[
        str | None,
        typer.Option(
            help="Reduction of the loss: 'sum' (beta = lam; the default), or torch's 'mean' over n rows and c outputs: "
            "beta = lam n c / 2 for squared, lam n for cross_entropy, lam n c for logistic, huber and squared_hinge."
        ),
    ] = None,
    output_bias: Annotated[
        str, typer.Option(help="Whether weight decay applied to the last layer's bias: 'penalised' or 'free'.")
    ] = "penalised",
    key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which network of a checkpoint, such as model or ema; needed if several."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="MODEL is deeper: certify its last layers alone, given by the beginning of their names, such as "
            "classifier, or 'auto' for the last two. DATA then holds the features that the layers before compute.",
        ),
    ] = None,
    first_layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the first layer, needed if neither names nor sizes show it."),
    ] = None,
    activation: Annotated[str, typer.Option(help="Activation between the layers: 'relu' or 'linear'.")] = "relu",
    stride: Annotated[int, typer.Option(help="Stride of a CNN's Conv2d.")] = 1,
    padding: Annotated[int, typer.Option(help="Padding of a CNN's Conv2d.")] = 0,
    pool: Annotated[
        str,
        typer.Option(help="Pooling of a CNN: 'none', 'global', or AvgPool2d's side. 'global' also averages tokens."),
    ] = "none",
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time to narrow the interval of the optimum, by training on and by better bounds. Ctrl-C ends it.",
        ),
    ] = None,
    better: Annotated[
        str | None,
        typer.Option(metavar="FILE.pt", help="Write the better network's state dict here; needs --time-limit."),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw the interval against time here (.svg, .png); needs --time-limit."),
    ] = None,
    plugins_dir: PluginsDir = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Prove how far a trained network can be from the global optimum of its training problem.

    The objective is F + beta/2 (squared weights), with F a sum over samples; with --reduction mean, beta follows from
    the number of samples and outputs, and is printed. The exit code is 0, or 2 if a file cannot be read or the network
    is not covered.
    """
    with plain_errors():
        _check_outputs(better, plot, time_limit)
        decay = _weight_decay(weight_decay, weight_decay_first, weight_decay_second)
        check_arguments(model, data)  # before torch is imported, which takes seconds
        from dataclasses import replace

        import numpy as np

        from convexnn_bench.module_reports import certify_module, file_head_words
        from convexnn_bench.modules import load_state, module_from_state
        from convexnn_bench.plugins import add_plugins
        from convexnn_bench.records import to_json

        add_plugins(plugins_dir=plugins_dir)
        state = load_state(model, key, head)
        samples = _samples(data, state)
        X, Y = samples.X, samples.y
        _check_words(Y, loss)
        width = math.prod(np.shape(X)[1:])
        module = module_from_state(state, activation, stride, padding, pool, width=width, first_layer=first_layer)
        report = certify_module(
            module, X, Y, loss, decay, reduction=reduction, output_bias=output_bias, bias_decay=bias_decay,
            time_limit=time_limit,
        )  # fmt: skip
        report = replace(report, assumptions=(*report.assumptions, *samples.notes))
        if head is not None:
            report = replace(report, condition=file_head_words(_layers(state, head)))
        saved = _saved(report, better, plot, state, module.state_dict())
        typer.echo(to_json(report.to_dict()) if json else "\n".join([str(report), *saved]))


def _weight_decay(both: float | None, first: float | None, second: float | None) -> float | dict[str, float]:
    """Return the number for both layers, or those by layers, as `certify_module` takes them."""
    from convexnn_bench.errors import InputError

    if both is not None and first is None and second is None:
        return both
    if both is None and first is not None and second is not None:
        return {"first": first, "second": second}
    flags = {"--weight-decay": both, "--weight-decay-first": first, "--weight-decay-second": second}
    given = " and ".join(flag for flag, value in flags.items() if value is not None) or "none of them"
    raise InputError(
        "give --weight-decay for both layers, or --weight-decay-first and --weight-decay-second together; the command "
        f"has {given}"
    )


def _layers(state: dict[str, Any], head: str) -> list[str]:
    """Return the names in the file of the layers of a head."""
    layers = dict.fromkeys(name.rpartition(".")[0] for name in state)
    return [layer if head == "auto" else f"{head}.{layer}" for layer in layers]


def _check_outputs(better: str | None, plot: str | None, time_limit: float | None) -> None:
    """Raise InputError for a file that cannot be made, before any work is done."""
    from convexnn_bench.errors import InputError

    for flag, path in (("--better", better), ("--plot", plot)):
        if path is not None and time_limit is None:
            raise InputError(f"{flag} {path}: without --time-limit SECONDS there is no better network and no curve")
        if path is not None and not Path(path).parent.is_dir():
            raise InputError(f"{flag} {path}: the folder {Path(path).parent} does not exist")
    if plot is not None and Path(plot).suffix not in (".svg", ".png", ".pdf"):
        raise InputError(f"--plot {plot}: the name must end in .svg, .png or .pdf")


def _saved(report: Any, better: str | None, plot: str | None, given: dict[str, Any], read: dict[str, Any]) -> list[str]:
    """Write the better network and the figure, and return what was written in words.

    given, read: the weights by their names in the user's file, and by those in the module that was read from it.
    """
    said = []
    if plot is not None:
        report.plot().savefig(plot)
        said.append(f"Figure: {plot}")
    if better is not None and report.better is not None:
        import torch

        names = {
            key: next(
                (
                    name
                    for name, each in given.items()
                    if each.numel() == value.numel()
                    and (torch.equal(each.double().cpu().reshape(value.shape), value.double().cpu()))
                ),
                key,
            )
            for key, value in read.items()
        }
        torch.save({names[key]: value for key, value in report.better.state_dict().items()}, better)
        said.append(f"Better network: {better}")
    elif better is not None:
        said.append("No better network was found, and no file was written.")
    return said


def _check_words(Y: Any, loss: str) -> None:
    """Raise InputError, with the flags of the command, for targets that are words under a loss of numbers."""
    from convexnn_bench.errors import InputError
    from convexnn_bench.plugins import LOSSES

    given = LOSSES.make(loss)
    if Y.dtype.kind in "US" and given.labels is None:
        raise InputError(
            f"the targets in DATA are words, such as {str(Y.flat[0])!r}, and --loss {given.name} takes numbers: give "
            "--loss cross_entropy, or --loss logistic for two classes and one output, if the network was trained on it"
        )


def _samples(data: str, state: dict[str, Any]) -> Any:
    """Return the samples of a data file in the layout that the network takes, with targets as in the file."""
    from convexnn_bench.errors import InputError
    from convexnn_bench.plugins import DATASETS, parse_spec

    name, given = parse_spec(data) if data.startswith("file[") else ("file", {"path": data})
    if "targets" in given:
        raise InputError("targets: leave this parameter of DATA out, since --loss says how labels are read")
    # The weights of an attention block have three axes, those of a convolution four.
    layout = {3: "tokens", 4: "image"}.get(max(value.ndim for value in state.values()), "flat")
    try:
        return DATASETS.make(name, **{"layout": layout, **given}).samples()
    except InputError as error:
        # The data set calls the parameter `path`, and the command calls it DATA.
        raise InputError(re.sub(r"^path\b", "DATA", str(error))) from error
