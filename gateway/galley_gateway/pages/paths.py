"""Paths of pages: which a browser may be sent to, and the way back from a page that tells of an error."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request

_ACTS: Final = ("/ui/login", "/ui/login/start", "/ui/login/callback", "/ui/logout")
_OF_PROGRAMS: Final = ("/api/", "/openapi.json")

FIRST: Final = "/ui/"
"""The way to the first page."""


def local_path(text: str) -> str:
    """Return a path of a page of ours; the first page for anything else."""
    plain = text.startswith("/ui/") and "//" not in text and "\\" not in text and text.isprintable()
    acts = text.startswith("/ui/do/") or text.partition("?")[0] in _ACTS
    return text if plain and not acts else FIRST


def for_people(scope: Mapping[str, Any]) -> bool:
    """Return whether a page tells of an error: to a browser, and for all paths of the dashboard.

    Programs get a problem document, and so does a browser that asks for a path of the API.
    """
    path: str = scope["path"]
    if path.startswith(_OF_PROGRAMS):
        return False
    if path == "/ui" or path.startswith(FIRST):
        return True
    accepted = (value for name, value in scope["headers"] if name == b"accept")
    return any(b"text/html" in value.lower() for value in accepted)


def way_back(request: Request, otherwise: str) -> str:
    """Return the page of ours that led to a request; another one if none did."""
    try:
        parts = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return otherwise
    whole = f"{parts.path}?{parts.query}" if parts.query else parts.path
    ours = parts.netloc == request.headers.get("host") and local_path(whole) == whole
    return whole if ours and parts.path != request.url.path else otherwise
