"""The experiment of `convexnn-bench layerwise`, with its baselines.

Every seed is trained stage by stage.

One JSON file holds the results of all seeds that have finished; a run that is started again goes on from it.
"""

import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexnn_bench import parallel
from convexnn_bench.datasets import one_of, whole
from convexnn_bench.errors import InputError
from convexnn_bench.layerwise.data import accuracy, check_data
from convexnn_bench.layerwise.end_to_end import train_end_to_end
from convexnn_bench.layerwise.exact import exact_stage
from convexnn_bench.layerwise.network import LayerwiseNetwork
from convexnn_bench.layerwise.plans import StagePlan, Training
from convexnn_bench.layerwise.result import LayerwiseResult
from convexnn_bench.layerwise.run import train_layerwise
from convexnn_bench.plugins import DATASETS, LOSSES, parse_spec
from convexnn_bench.records import code_version, describe_machine, to_json
from convexnn_bench.storage import whole_file
from convexnn_bench.terminal import progress

Split = tuple[np.ndarray, np.ndarray]
TEST_SHARE = 5  # one sample of so many is for the test if a data set has no test part
DEFAULT_STAGES = ("gates=16,pool=7", "gates=24,pool=7", "gates=32,pool=7")
RESULTS = "layerwise.json"
PAUSE, SHARE = 2.0, 0.02  # least seconds between drawings, and their largest share of the time
BASELINES = ("end_to_end", "weight_decay", "exact")


def stage_plan(text: str) -> StagePlan:
    """Return the StagePlan of a text such as "gates=32,m=1,pool=7". Raises InputError."""
    parameters = parse_spec(f"stage[{text}]")[1]
    unknown = sorted(set(parameters) - set(StagePlan.__dataclass_fields__))
    if unknown:
        known = ", ".join(StagePlan.__dataclass_fields__)
        raise InputError(f"--stage has no parameter {unknown[0]!r}; it has: {known}")
    return StagePlan(**parameters)


def load_split(spec: str) -> tuple[Split, Split]:
    """Return training and test data.

    They are the data set's parts, else four fifths and one fifth drawn with seed 0.

    If the data set has parts, `n` is the number of training images, and the test part is taken whole. Raises InputError
    for a data set that is missing, has no images, or too few for a test.
    """
    name, parameters = parse_spec(spec)
    dataset = DATASETS.get(name)
    missing = dataset.unavailable()
    if missing is not None:
        raise InputError(f"data set {name}: {missing}")
    if "layout" not in dataset.parameters:
        images = [other for other in DATASETS.names() if "layout" in DATASETS.get(other).parameters]
        raise InputError(f"data set {name!r} has no images; data sets with images: {', '.join(images)}")
    for fixed in ("layout", "split"):
        if fixed in parameters:
            raise InputError(f"data set {name}: {fixed} cannot be chosen here: images of both parts are used")
    parameters = {**parameters, "layout": "image"}
    if "split" in dataset.parameters:
        whole_part = {key: value for key, value in parameters.items() if key != "n"}
        train = dataset(**parameters, split="train").data()
        test = dataset(**whole_part, split="test").data()
        return (train.X, train.Y), (test.X, test.Y)
    data = dataset(**parameters).data()
    if len(data.X) < TEST_SHARE:
        raise InputError(
            f"data set {spec}: {len(data.X)} images are too few: {TEST_SHARE} are needed, one of them for the test"
        )
    # All seeds share this split, so that the spread over seeds is that of training alone.
    order = np.random.default_rng(0).permutation(len(data.X))
    kept, rest = np.split(order, [len(order) // TEST_SHARE])
    return (data.X[rest], data.Y[rest]), (data.X[kept], data.Y[kept])


@dataclass(frozen=True)
class Plan:
    """What is trained, and the baselines beside it. exact_images: images of the stage that is solved exactly."""

    dataset: str
    stages: Sequence[StagePlan]
    training: Training
    beta_fraction: float
    device: str
    baselines: Sequence[str] = BASELINES
    exact_images: int = 300

    def __post_init__(self) -> None:
        for name in self.baselines:
            one_of("baseline", name, BASELINES)
        whole("exact_images", self.exact_images, 10)

    def asked(self) -> dict[str, Any]:
        """Return all settings that must be equal for results to belong together."""
        return {
            "dataset": self.dataset, "stages": [vars(stage) for stage in self.stages],
            "training": vars(self.training), "beta_fraction": self.beta_fraction, "device": self.device,
            "baselines": list(self.baselines), "exact_images": self.exact_images, "version": code_version(),
        }  # fmt: skip


def run_layerwise(
    plan: Plan,
    seeds: int,
    out: Path,
    tell: Callable[[str], None],
    draw: Callable[[dict[str, Any]], Any] = lambda experiment: None,
) -> dict[str, Any]:
    """Train the stages and the baselines for every seed, and write `out`/layerwise.json.

    Parameters
    ----------
    plan : Plan
        What is trained.
    seeds : int
        The seeds are 0, ..., seeds - 1.
    out : Path
        Folder of the results and checkpoints. Seeds that it holds are not trained again.
    tell : callable
        Called with a line for each seed.
    draw : callable
        Called now and then with the results so far, for a figure that grows.

    Returns
    -------
    dict
        The content of the file: the plan, the machine, samples and seeds.

    Raises
    ------
    InputError
        Before anything is trained, if an argument is not usable or `out` holds another run.
    """
    train, test = load_split(plan.dataset)
    asked = plan.asked()
    head: dict[str, Any] = {**asked, "machine": describe_machine(), "samples": [len(train[0]), len(test[0])]}
    done = _before(out, asked)
    parallel.barrier()  # all processes have read the file before one writes it
    for seed in range(seeds):
        if seed not in done:
            live = Live(draw, head, list(done.values()))
            done[seed] = _Seed(plan, train, test, seed, out / f"seed{seed}", live).run()
            if parallel.rank() == 0:
                # The file is written after every seed: a run that is stopped repeats the baselines of one seed at most.
                with whole_file(out / RESULTS) as partial:
                    partial.write_text(to_json({**head, "seeds": list(done.values())}), encoding="utf-8")
        tell(f"seed {seed}: {_line(done[seed])}")
    return {**head, "seeds": [done[seed] for seed in range(seeds)]}


def _line(results: dict[str, Any]) -> str:
    """Return a seed's test accuracies in a line."""
    last = results["stages"][-1]
    parts = [f"stage by stage {last['test_accuracy']:.4f} (ensemble {last['ensemble_accuracy']:.4f})"]
    if "weight_decay" in results:
        parts.append(f"weight decay on Z {results['weight_decay']['stages'][-1]['test_accuracy']:.4f}")
    if "end_to_end" in results:
        parts.append(f"end to end {results['end_to_end']['test_accuracy']:.4f}")
    return ", ".join(parts)


class Live:
    """Draws the results so far, so seldom that it costs no more than SHARE of the time."""

    def __init__(self, draw: Callable[[dict[str, Any]], Any], head: dict[str, Any], earlier: list[dict[str, Any]]):
        self.draw, self.head, self.earlier, self.next = draw, head, earlier, 0.0

    def __call__(self, results: dict[str, Any]) -> None:
        started = time.perf_counter()
        if parallel.rank() == 0 and started >= self.next:
            self.draw({**self.head, "seeds": [*self.earlier, results]})
            ended = time.perf_counter()
            # After a drawing of t seconds a pause of t / SHARE keeps drawing to a share of the time of at most SHARE.
            self.next = ended + max(PAUSE, (ended - started) / SHARE)


def _before(out: Path, asked: dict[str, Any]) -> dict[int, Any]:
    """Return the seeds that are finished in `out`. Raises InputError if it holds another run."""
    path = out / RESULTS
    text = path.read_bytes() if path.is_file() else b""
    if not parallel.same_number(zlib.crc32(text)):
        raise InputError(f"--out: the processes do not all find the same {path}: give a folder that they share")
    if not text:
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"--out: {path} cannot be read: delete it, or give another folder") from error
    if not isinstance(content, dict) or "seeds" not in content:
        raise InputError(f"--out: {path} is no result of layerwise training: give another folder")
    # Settings are compared in the form in which JSON returns them, where tuples have become lists.
    other = [key for key, value in asked.items() if content.get(key) != json.loads(to_json({key: value}))[key]]
    if other:
        raise InputError(f"--out: {path} is of a run with another {', another '.join(other)}: give another folder")
    return {results["seed"]: results for results in content["seeds"]}


class _Seed:
    """The training and the baselines of one seed; `results` is what is known so far."""

    def __init__(self, plan: Plan, train: Split, test: Split, seed: int, folder: Path, live: Live):
        self.plan, self.train, self.test, self.seed, self.folder = plan, train, test, seed, folder
        self.live = live
        self.results: dict[str, Any] = {"seed": seed, "history": [], "stages": []}

    def run(self) -> dict[str, Any]:
        """Train stage by stage and the baselines of the plan; return the results."""
        plan, device = self.plan, self.plan.device
        result = self._layerwise(plan.training, self.folder, self.results)
        if "exact" in plan.baselines:
            self.results["exact"] = exact_stage(
                *self.train, plan.stages[0], plan.training, plan.beta_fraction, plan.exact_images, self.seed, device
            )
        if "weight_decay" in plan.baselines:
            how = replace(plan.training, form="blocks", certify_every=plan.training.epochs)
            self._layerwise(how, self.folder / "weight_decay", self.results.setdefault("weight_decay", {}))
        if "end_to_end" in plan.baselines:
            self._end_to_end(result, device)
        return self.results

    def _layerwise(self, how: Training, folder: Path, results: dict[str, Any]) -> LayerwiseResult:
        """Train stage by stage, and put history and stages into `results` as they come."""

        def on_epoch(history: list[dict[str, Any]]) -> None:
            results["history"] = history
            self.live(self.results)

        result = train_layerwise(
            *self.train, self.plan.stages, how, beta_fraction=self.plan.beta_fraction, test=self.test, seed=self.seed,
            device=self.plan.device, checkpoint=folder, on_epoch=on_epoch,
        )  # fmt: skip
        results |= {"history": result.history, "stages": result.stages}
        return result

    def _end_to_end(self, result: LayerwiseResult, device: str) -> None:
        """Train the same network end to end, for as many epochs in all.

        The weight decay is that of the last stage.
        """
        loss, how = LOSSES.make("cross_entropy"), self.plan.training
        data = check_data(loss, *self.train, self.test, device)
        assert data.test is not None
        test_X, test_Y = data.test
        epochs = how.epochs * len(result.network.stages)
        baseline: dict[str, Any] = {"epochs": epochs, "beta": result.stages[-1]["beta"], "history": []}
        self.results["end_to_end"] = baseline
        with progress("training end to end", epochs, show=parallel.rank() == 0) as update:
            # Evaluation is off the clock, and as rare as the certificates of the stages.
            def on_epoch(done: int, seconds: float, network: LayerwiseNetwork) -> None:
                update(done)
                if done % how.certify_every and done < epochs:
                    return
                reached = accuracy(network.predict(test_X)[-2], test_Y)
                baseline["history"].append({"epoch": done, "seconds": seconds, "test_accuracy": reached})
                baseline.update(seconds=seconds, test_accuracy=reached)
                self.live(self.results)

            generator = torch.Generator().manual_seed(self.seed)
            network, _ = train_end_to_end(
                result.network.stages, data.X, data.Y, loss, baseline["beta"], replace(how, epochs=epochs), generator,
                on_epoch,
            )  # fmt: skip
        baseline["train_accuracy"] = accuracy(network.predict(data.X)[-2], data.Y)
