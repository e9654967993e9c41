"""The comparison with other queues runs, for those that need no server; what it finds is no test's matter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(300)
def test_a_quick_comparison_has_a_result_of_every_task() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rivals", "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "Galley, NATS",
        "a raw nats-py loop without handlers",
        "Huey, 4 processes, SQLite",
    ]
