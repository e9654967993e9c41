"""Making a child process when the operating system does not allow it."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from galley_worker.runners import sweeper
from galley_worker.runners.child import sweep
from galley_worker.runners.child.entry import Setup
from galley_worker.runners.child.kernel import children_of
from galley_worker.runners.fork_server import ForkServer


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only the names are used


@pytest.mark.parametrize("refused", ["pipe", "memfd_create", "ftruncate"])
def test_a_child_that_cannot_be_made_leaves_no_file_open(
    monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = open_files()
    monkeypatch.setattr(os, refused, refuse)
    with pytest.raises(OSError, match="Too many open files"):
        ForkServer().make(Setup("jobs", (), (), "plain"))
    assert open_files() <= before


def test_a_fork_server_that_cannot_begin_says_why_and_ends() -> None:
    program = "from galley_worker.runners.fork_server import _become_server as b; b('1 / 0', [], set())"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr


def gone() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_process_that_ended_before_it_was_killed_or_asked_hinders_no_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [[gone()], []]
    monkeypatch.setattr(sweep, "marked", lambda *_: found.pop(0))
    assert len(sweep.sweep(b"GALLEY_WORKER=1", 0)) == 1
    assert found == []
    assert children_of(gone()) == set()


def test_a_sweeper_that_stands_still_keeps_no_worker_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "_SWEEP_SECONDS", 0.05)
    own = sweeper.Sweeper()
    os.kill(own._process.pid, signal.SIGSTOP)
    own.close()
    assert own._process.returncode == -signal.SIGKILL
