"""Web sockets: the part of nats-py that needs aiohttp, which is loaded for `ws://` and `wss://` alone.

Where aiohttp is installed, nats-py imports it whether or not it is needed. That is a third of the time a
command or a worker takes to start.
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

from galley.errors import ServerInvalid

_SCHEMES: Final = ("ws://", "wss://")
_NEEDED: Final = ("aiohttp", "multidict")


class _Hidden(MetaPathFinder):
    """Hides what web sockets need from the imports of one thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name in _NEEDED and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is not loaded here", name=name)
        return None


def import_nats() -> None:
    """Import nats-py without aiohttp, unless that is loaded already."""
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        importlib.import_module("nats.aio.transport")
    finally:
        sys.meta_path.remove(hidden)


def prepare(server: str) -> None:
    """Load what the address of a server needs.

    Raises:
        ServerInvalid: if it is one of web sockets, and aiohttp is not installed.
    """
    if not server.startswith(_SCHEMES):
        return
    transport = importlib.import_module("nats.aio.transport")
    for name in _NEEDED:
        try:
            setattr(transport, name, importlib.import_module(name))
        except ImportError:
            raise ServerInvalid(server, f"web sockets need the package {name}: pip install aiohttp") from None
