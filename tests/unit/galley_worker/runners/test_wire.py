"""A child whose worker is gone ends, though nothing kills it."""

import subprocess
import sys

import pytest

from galley_worker.runners.child.wire import LOST

_WORKER_GONE = """
import socket
from galley_worker.runners.child.wire import Wire

ours, its = socket.socketpair()
wire = Wire(ours)
wire.send(b"an answer that its worker does not read any more")
its.close()
"""


@pytest.mark.parametrize("step", ["wire.receive()", "wire.send(b'another answer')"])
def test_a_child_that_finds_its_worker_gone_ends(step: str) -> None:
    program = [sys.executable, "-c", f"{_WORKER_GONE}{step}"]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (LOST, "")
