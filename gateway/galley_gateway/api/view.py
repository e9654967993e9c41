"""A task, as the API answers it."""

from typing import Any, Final

from msgspec.structs import replace

from galley.cli.documents import task_document
from galley.encryption.errors import EncryptionError
from galley.errors import ResultMismatch, ResultTimeout, TaskEnded
from galley.handle import AsyncHandle
from galley.objects.errors import ObjectError
from galley.task_status import Phase, TaskStatus
from galley_gateway.api.model import SHOWN_BYTES, TaskView, as_json, shaped

SUBMITTED: Final = {"id": "0c5nqSYtGkDaxAVzBqNEJw", "namespace": "default", "queue": "images"}
EXAMPLE: Final = {
    **SUBMITTED, "lane": "high", "phase": "Succeeded", "handler": "thumbnail", "attempt": 1,
    "submittedAt": "2026-01-01T12:00:00Z", "result": {"width": 128},
}  # fmt: skip

_AGAIN_SECONDS: Final = 5.0
"""How long the result of a task that has ended is waited for: it may have been redriven, and run again."""


def task_view(status: TaskStatus) -> TaskView:
    """Return a task without its result."""
    view: TaskView = shaped(task_document(status), TaskView)
    return view


async def with_result(handle: AsyncHandle[Any], status: TaskStatus) -> TaskView:
    """Return a task with its result, if it has one that can be read."""
    view = task_view(status)
    if status.phase is not Phase.SUCCEEDED:
        return view
    if status.stored_bytes > SHOWN_BYTES:
        note = f"the result has {status.stored_bytes} bytes, and the gateway shows {SHOWN_BYTES} at most"
        command = f"galley result {status.address.queue}/{status.address.id}"
        return replace(view, note=f"{note}; `{command}` prints it")
    try:
        return replace(view, result=as_json(await handle.result(_AGAIN_SECONDS, hold_slot=True)))
    except (TaskEnded, ResultTimeout):  # it was redriven between the two looks
        return view
    except (EncryptionError, ObjectError, ResultMismatch) as error:
        return replace(view, note=f"{error}; {error.hint}")
