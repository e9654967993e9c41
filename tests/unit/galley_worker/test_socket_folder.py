import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path

import pytest

from galley_worker.runners.socket_folder import socket_folder

HOLDS = """
from galley_worker.runners.socket_folder import socket_folder
with socket_folder():
    print("there", flush=True)
    input()
"""


def test_a_folder_too_long_for_sockets_is_replaced_for_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with socket_folder():
        folder = Path(util.get_temp_dir())
        assert len(str(folder)) < 60
        assert folder.is_dir()
        assert tempfile.gettempdir() == str(long)
    assert not folder.exists()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder in which sockets have room, which that of a test need not be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_what_a_killed_worker_left_goes_when_the_next_one_starts(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    (short / "galley-socket-just-made").mkdir()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(short)},
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"there\n"
        assert len(list(short.glob("galley-socket-*"))) == 3
        workers[0].kill()
        workers[0].wait()
        with socket_folder():
            # Its own, that of the worker which runs, and one whose worker may be about to lock it.
            assert len(list(short.glob("galley-socket-*"))) == 3
            assert Path(util.get_temp_dir()).parent == short
        assert len(list(short.glob("galley-socket-*"))) == 2
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
