"""What a node needs of the machine."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
from testcluster import machine
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), most))
machine.wait_for_watchers(0.1)
"""


@pytest.mark.parametrize(("files", "told"), [(30, "fewer than 32 instances of inotify were free"), (100, "")])
def test_a_node_starts_only_once_its_programs_can_watch_files(files: int, told: str) -> None:
    # The kernel answers alike where a process has too many files and where a user has too many instances.
    command = [sys.executable, "-c", _PROGRAM, str(files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told in done.stderr
    assert (done.returncode == 0) == (not told), done.stderr
