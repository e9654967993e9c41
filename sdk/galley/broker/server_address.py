"""The address of NATS: whether a text is one, and how it is shown to people."""

import re
from typing import Final
from urllib.parse import urlsplit

from galley.errors import ServerInvalid

_SCHEMES: Final = ("nats", "tls", "ws", "wss")
_SECRET: Final = re.compile(r"(?<=//)[^/@]*@|^[^/@]*@")


def check_server(server: str) -> None:
    """Refuse what cannot be an address; `HOST` and `HOST:PORT` are taken as `nats://` ones.

    Raises:
        ServerInvalid: saying what is wrong with it.
    """
    whole = server if "://" in server else f"nats://{server}"
    try:
        parts = urlsplit(whole)
        parts.port  # noqa: B018 - it is checked when it is asked for
    except ValueError as error:
        raise ServerInvalid(shown_server(server), str(error)) from None
    if parts.scheme not in _SCHEMES:
        raise ServerInvalid(shown_server(server), f"{parts.scheme!r} is not one of {', '.join(_SCHEMES)}")
    if not parts.hostname:
        raise ServerInvalid(shown_server(server), "there is no host in it")


def shown_server(server: str) -> str:
    """Return an address without the password or token in it, for messages and logs."""
    return _SECRET.sub("", server)
