"""Making a child process when the operating system does not allow it."""

import errno
import os

import pytest

from galley_worker.runners.child.entry import Setup
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
