"""Handlers whose every word is a marker, which must not be found in the clear."""

import logging

from galley import File, current_task, task


@task(queue="drills")
def keep(secret: str) -> dict[str, str]:
    """Return another marker, and log and print further ones."""
    logging.getLogger("handlers").warning("LOGGED-%s", secret)
    print(f"PRINTED-{secret}")  # noqa: T201 - what a handler prints is to be looked for
    return {"result": f"RESULT-{secret}"}


@task(queue="drills")
def tell(secret: str) -> None:
    """Raise with a marker in the message, and one in the source line of the traceback."""
    raise ValueError(f"MESSAGE-{secret}")  # TRACEBACK-2f1d0c


@task(queue="drills")
def report(secret: str) -> str:
    """Tell how far it is, and where to go on, in markers."""
    me = current_task()
    assert me is not None, "it runs in a worker"
    me.progress(0.5, f"PROGRESS-{secret}")
    me.checkpoint({"at": f"CHECKPOINT-{secret}"})
    return f"STEP-{secret}"


@task(queue="drills", batch=4)
def several(secrets: list[str]) -> list[str]:
    """Return a marker for each."""
    return [f"MEMBER-{secret}" for secret in secrets]


@task(queue="drills")
def read(file: File, text: str) -> str:
    """Return what a file has, which is a marker, and some of a large input."""
    return file.path().read_text()[:40] + text[:40]
