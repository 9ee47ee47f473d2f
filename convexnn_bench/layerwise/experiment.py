"""The experiment of `convexnn-bench layerwise`: every seed stage by stage and end to end, kept in one file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexnn_bench import parallel
from convexnn_bench.errors import InputError
from convexnn_bench.harness.machine import code_version, describe_machine
from convexnn_bench.harness.records import to_json, whole_file
from convexnn_bench.layerwise.end_to_end import train_end_to_end
from convexnn_bench.layerwise.network import LayerwiseNetwork
from convexnn_bench.layerwise.plans import StagePlan, Training
from convexnn_bench.layerwise.run import LayerwiseResult, accuracy, train_layerwise
from convexnn_bench.registry import DATASETS, LOSSES
from convexnn_bench.specs import parse_spec
from convexnn_bench.terminal import progress

Split = tuple[np.ndarray, np.ndarray]
TEST_SHARE = 5  # one sample of so many is kept for the test, where a data set has no test part of its own
DEFAULT_STAGES = ("gates=16,pool=7", "gates=24,pool=7", "gates=32,pool=7")
RESULTS = "layerwise.json"


def stage_plan(text: str) -> StagePlan:
    """ "gates=32,m=1,pool=7" as a StagePlan. Raises InputError."""
    parameters = parse_spec(f"stage[{text}]")[1]
    unknown = sorted(set(parameters) - set(StagePlan.__dataclass_fields__))
    if unknown:
        known = ", ".join(StagePlan.__dataclass_fields__)
        raise InputError(f"--stage has no parameter {unknown[0]!r}; it has: {known}")
    return StagePlan(**parameters)


def load_split(spec: str) -> tuple[Split, Split]:
    """(training data, test data) of a data set: its own parts, else four fifths and one fifth, drawn with seed 0.

    Raises InputError for a data set that is not here or has no images.
    """
    name, parameters = parse_spec(spec)
    dataset = DATASETS.get(name)
    missing = dataset.unavailable()
    if missing is not None:
        raise InputError(f"data set {name}: {missing}")
    if "layout" not in dataset.parameters:
        images = [other for other in DATASETS.names() if "layout" in DATASETS.get(other).parameters]
        raise InputError(f"data set {name!r} has no images; those that have: {', '.join(images)}")
    parameters = {**parameters, "layout": "image"}
    if "split" in dataset.parameters:
        train, test = (dataset(**{**parameters, "split": part}).data() for part in ("train", "test"))
        return (train.X, train.Y), (test.X, test.Y)
    data = dataset(**parameters).data()
    order = np.random.default_rng(0).permutation(len(data.X))
    kept, rest = np.split(order, [len(order) // TEST_SHARE])
    return (data.X[rest], data.Y[rest]), (data.X[kept], data.Y[kept])


def run_layerwise(
    spec: str,
    stages: Sequence[StagePlan],
    training: Training,
    beta_fraction: float,
    seeds: int,
    device: str,
    out: Path,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Train for every seed, layerwise and end to end, and write `out`/layerwise.json; returns what is in it.

    What a seed has finished is kept in `out`, and not done again. Raises InputError before anything is trained, also
    for an `out` that holds another run.
    """
    train, test = load_split(spec)
    asked = {
        "dataset": spec, "stages": [vars(stage) for stage in stages], "training": vars(training), "device": device,
        "beta_fraction": beta_fraction, "version": code_version(),
    }  # fmt: skip
    told: dict[str, Any] = {**asked, "machine": describe_machine(), "samples": [len(train[0]), len(test[0])]}
    done = _before(out, asked)
    parallel.wait()  # all have read it before one writes
    for seed in range(seeds):
        if seed not in done:
            done[seed] = _one_seed(train, test, stages, training, beta_fraction, seed, device, out / f"seed{seed}")
            if parallel.rank() == 0:
                with whole_file(out / RESULTS) as partial:
                    partial.write_text(to_json({**told, "seeds": list(done.values())}), encoding="utf-8")
        last, whole = done[seed]["stages"][-1], done[seed]["end_to_end"]
        tell(
            f"seed {seed}: stage by stage {last['test_accuracy']:.4f} (ensemble {last['ensemble_accuracy']:.4f}), "
            f"end to end {whole['test_accuracy']:.4f}"
        )
    return {**told, "seeds": [done[seed] for seed in range(seeds)]}


def _before(out: Path, asked: dict[str, Any]) -> dict[int, Any]:
    """Seeds that are finished in `out`. Raises InputError where that is of another run."""
    path = out / RESULTS
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    other = [key for key, value in asked.items() if kept.get(key) != json.loads(to_json({key: value}))[key]]
    if other:
        raise InputError(f"--out: {path} is of a run with another {', another '.join(other)}: give another folder")
    return {found["seed"]: found for found in kept["seeds"]}


def _one_seed(
    train: Split, test: Split, stages: Sequence[StagePlan], training: Training, fraction: float, seed: int,
    device: str, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    result = train_layerwise(
        *train, stages, training, beta_fraction=fraction, test=test, seed=seed, device=device, checkpoint=folder
    )
    return {
        "seed": seed,
        "history": result.history,
        "stages": result.stages,
        "end_to_end": _whole(result, train, test, training, seed, device),
    }


def _whole(
    result: LayerwiseResult, train: Split, test: Split, training: Training, seed: int, device: str
) -> dict[str, Any]:
    """The same network end to end, for as many epochs in all, with the weight decay of the last stage."""
    loss = LOSSES.make("cross_entropy")
    X, test_X = (torch.as_tensor(part[0], dtype=torch.float32, device=device) for part in (train, test))
    Y, test_Y = (torch.as_tensor(loss.prepare_targets(part[1]), device=device) for part in (train, test))
    epochs = training.epochs * len(result.network.stages)
    how = Training(**{**vars(training), "epochs": epochs})
    beta = result.stages[-1]["beta"]
    generator = torch.Generator().manual_seed(seed)
    with progress("training end to end", epochs) as update:
        network, seconds = train_end_to_end(result.network.stages, X, Y, loss, beta, how, generator, update)
    right = {name: accuracy(_last(network, maps), targets) for name, maps, targets in
             (("train_accuracy", X, Y), ("test_accuracy", test_X, test_Y))}  # fmt: skip
    return {"seconds": seconds, "epochs": epochs, "beta": beta, **right}


def _last(network: LayerwiseNetwork, X: torch.Tensor) -> torch.Tensor:
    return network.predict(X)[-2]
