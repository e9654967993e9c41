"""Handlers whose every word is a marker, which must not be found in the clear."""

import logging

from galley import task


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
