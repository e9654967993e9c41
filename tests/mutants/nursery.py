"""Runs pytest again and again, each time in a fork of a process that has imported what never changes.

Importing pytest and the libraries is most of what a small test file costs. Nothing of Galley is imported
before the fork, since that is what a mutant changes. A line of JSON asks, and a line of JSON answers.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Final

IMPORTED: Final = (
    "_pytest.pytester", "aiohttp", "asyncio", "cryptography.x509", "hypothesis.strategies", "kopf", "msgspec",
    "nats.aio.client", "nats.js.api", "pydantic", "pytest", "pytest_asyncio.plugin", "pytest_timeout", "yaml",
)  # fmt: skip


def run(arguments: list[str], output: Path, limit_seconds: float) -> int | None:
    """Return pytest's exit code; None if it had to be killed."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with output.open("wb") as log, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.argv = ["pytest", *arguments]
        code = 70
        try:
            code = int(sys.modules["pytest"].main(arguments))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    ending = os.pidfd_open(child)
    ended, _, _ = select.select([ending], [], [], limit_seconds)
    os.close(ending)
    # It, or what it left behind; what it was is not forgotten before it is waited for.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if ended else None


def main() -> None:
    """Answer until there are no more questions."""
    sys.path[0] = ""  # as for `python -m pytest`; it was the folder of this file
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        arguments, output, limit_seconds = json.loads(line)
        code = run(arguments, Path(output), limit_seconds)
        sys.stdout.write(json.dumps(code) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
