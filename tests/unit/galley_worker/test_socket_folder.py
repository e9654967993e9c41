import os
import subprocess
import sys
import tempfile
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


def test_what_a_killed_worker_left_goes_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "galley-socket-just-made").mkdir()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"there\n"
        assert len(list(tmp_path.glob("galley-socket-*"))) == 3
        workers[0].kill()
        workers[0].wait()
        with socket_folder():
            # Its own, that of the worker which runs, and one whose worker may be about to lock it.
            assert len(list(tmp_path.glob("galley-socket-*"))) == 3
            assert Path(util.get_temp_dir()).parent == tmp_path
        assert len(list(tmp_path.glob("galley-socket-*"))) == 2
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
