"""What a child answers for a handler that returned."""

from pathlib import Path
from typing import Any

import galley
from galley import File, RetryAfter
from galley_worker.runners.child.call import InputInvalid, done, failed
from galley_worker.runners.child.entry import Broke
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


def test_a_workflow_that_cannot_be_fails_its_task_with_what_to_do() -> None:
    answer = done(1, 0.1, galley.then(galley.call("jobs", "add", text="x" * 300_000)))
    assert isinstance(answer, Failed)
    assert (answer.reason, answer.retryable) == ("WorkflowInvalid", False)
    assert "has files, or an input above 256 KiB; have a step before it return the data" in answer.message


def test_an_exception_that_raises_when_it_is_read_fails_its_attempt_alone() -> None:
    error = RetryAfter(3)
    error.seconds = Hostile()  # type: ignore[assignment]
    answer = failed(1, 0.1, len, {}, error)
    assert isinstance(answer, Failed)
    assert answer.message == "it raised an exception that raises when it is described"
    assert answer.retryable


def resize(width: int, of: Any = Hostile()) -> None:  # noqa: B008 - such a default is the point
    """Have a default that no text can be made of."""


def test_a_handler_whose_defaults_have_no_text_still_says_what_was_wrong_with_its_input() -> None:
    answer = failed(1, 0.1, resize, None, InputInvalid("argument 'width' is missing"))
    assert isinstance(answer, Failed)
    assert answer.reason == "InputInvalid"
    assert answer.message == "argument 'width' is missing; the handler takes (...)"


def test_an_import_that_fails_with_an_error_of_which_there_is_no_traceback_is_told_without() -> None:
    column: Any = "?"  # as only a compiler of another language gives it
    error = SyntaxError("no tag", ("page.tpl", 3, column, "{{ name }"))
    told = Broke("import", "jobs", error).told()
    assert (told.name, told.place, told.problem) == ("jobs", "page.tpl:3", "SyntaxError: no tag")
    assert told.trace == ""
