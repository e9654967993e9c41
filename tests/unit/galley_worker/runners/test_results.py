"""What a child answers for a handler that returned."""

from pathlib import Path
from typing import Any

from galley import File
from galley_worker.runners.child.call import done
from galley_worker.runners.frames import Failed


class Hostile:
    """Raises whatever is asked of it, also its class."""

    @property
    def __class__(self) -> Any:
        raise LookupError("closed")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)

    def __repr__(self) -> str:
        raise LookupError("closed")


def test_a_result_that_cannot_be_read_fails_its_task_and_nothing_else() -> None:
    for value in (Hostile(), [Hostile()], {"a": Hostile()}):
        answer = done(1, 0.5, value)
        assert isinstance(answer, Failed)
        assert answer.reason == "ResultInvalid"
        assert "reading it raised LookupError: closed" in answer.message


def test_a_result_that_cannot_be_stored_leaves_no_copies_of_its_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"abc")
    files = [File(tmp_path / "one"), File(tmp_path / "two")]
    (tmp_path / "two").unlink()
    (tmp_path / "spool").mkdir()
    answer = done(1, 0.1, files, str(tmp_path / "spool"))
    assert isinstance(answer, Failed)
    assert "the result cannot be stored" in answer.message
    assert list((tmp_path / "spool").iterdir()) == []
