import tempfile
from multiprocessing import util
from pathlib import Path

import pytest

from galley_worker.runners.socket_folder import short_socket_folder


def test_a_folder_too_long_for_sockets_is_replaced_for_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with short_socket_folder():
        folder = Path(util.get_temp_dir())
        assert len(str(folder)) < 60
        assert folder.is_dir()
        assert tempfile.gettempdir() == str(long)
    assert not folder.exists()


def test_an_ordinary_folder_is_left_to_multiprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/ordinary")
    with short_socket_folder():
        pass
    assert tempfile.gettempdir() == "/tmp/ordinary"
