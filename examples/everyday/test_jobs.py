"""Unit tests of the handlers: `pytest test_jobs.py` needs no broker and no worker."""

from pathlib import Path

import pytest
from jobs import checksum

import galley
from galley.testing import EagerClient


def test_a_handler_is_a_function(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert checksum(str(tmp_path / "empty")).startswith("e3b0c442")


def test_a_wrong_argument_is_refused_where_it_is_submitted() -> None:
    with pytest.raises(galley.InputInvalid):
        checksum.call(path=7)  # type: ignore[arg-type]


def test_an_unreliable_disk_is_read_again(tmp_path: Path, galley_client: EagerClient) -> None:
    (tmp_path / "empty").write_bytes(b"")
    handle = galley_client.submit(checksum.call(path=str(tmp_path / "empty"), unreliable=True))
    assert handle.result().startswith("e3b0c442")
    assert handle.status().history.errors == 1


def test_a_missing_file_fails_three_times(galley_client: EagerClient) -> None:
    handle = galley_client.submit(checksum.call(path="missing"))
    with pytest.raises(galley.TaskFailed):
        handle.result()
    assert handle.status().history.errors == 3
