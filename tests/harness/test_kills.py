"""The benchmark that kills processes at random, with a few signals; `python benchmarks/kills.py` sends a hundred."""

import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"


@pytest.fixture(scope="module")
def kills():
    spec = importlib.util.spec_from_file_location("kills", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "kills", module)  # where dataclasses look up their annotations
        spec.loader.exec_module(module)
        yield module


def test_signals_to_every_process_cost_no_record_and_blame_no_other_cell(kills, tmp_path):
    campaign, rng = kills.Campaign(tmp_path, 10, "local"), random.Random(0)
    campaign.start()
    signals = [("server", "stop"), ("child", "kill"), ("cell", "kill"), ("command", "stop"), ("child", "stop")]
    for kind, action in signals:
        campaign.wait_for_cell()
        while not campaign.send(rng, kind, action):  # the cell has just ended
            campaign.wait_for_cell()
    campaign.finish()
    assert campaign.faults == []
    outcomes = {(hit.kind, hit.action): hit.outcome for hit in campaign.hits}
    assert list(outcomes) == signals
    assert outcomes.pop(("cell", "kill")).startswith("crashed (the process was ended by signal 9 (SIGKILL)")
    assert set(outcomes.values()) <= {"as left alone", "hit by another signal", "no cell ran"}
    assert "as left alone" in kills.table(campaign.hits)

    # What the benchmark looks for is found where it is there.
    path = campaign.out / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    blamed = {**json.loads(lines[-1]), "seed": -1, "status": "crashed", "reason": "none", "wall_seconds": 99.0}
    path.write_text("".join([*lines[:-1], lines[0], "half a line\n", json.dumps(blamed) + "\n"]))
    (campaign.temporary / "left").touch()
    campaign._judge()
    assert campaign.faults == [
        "a line of 11 bytes is no record",
        "11 records of 10 cells, 1 of them double",
        "seed -1 received no signal: crashed, none",
        "seed -1 took 99.0 s, its deadline was 5 s",
        "files are left: left",
    ]
