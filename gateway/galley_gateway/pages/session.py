"""Who looks at a page: a token in a cookie that scripts cannot read, and a second one in each form.

There is no store of sessions: any replica of the gateway serves any request, and a token that the cluster or
the OpenID provider no longer accepts is worth nothing here either.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from galley.unreadable import UNREADABLE
from galley_gateway.access import User
from galley_gateway.errors import CrossSite
from galley_gateway.gateway import Gateway

COOKIE: Final = "galley-token"
_PATH: Final = "/ui"
_PIECE: Final = 3800
"""Characters of a cookie: browsers keep cookies of up to 4 KiB."""
_PIECES: Final = 4
"""Cookies a token may take: those with many groups are long."""
_LONGEST_TOKEN: Final = _PIECE * _PIECES

_ATTEMPT: Final = "galley-login"
_ATTEMPT_SECONDS: Final = 600

_OWN_KEY: Final = secrets.token_bytes(32)


def _names() -> list[str]:
    return [COOKIE, *(f"{COOKIE}-{number}" for number in range(1, _PIECES))]


def token_of(request: Request) -> str:
    """Return the token of the cookies; empty if there is none."""
    return "".join(request.cookies.get(name, "") for name in _names())


async def user_of(gateway: Gateway, request: Request) -> User:
    """Return who looks.

    Raises:
        NotIdentified, AccessUnknown, ProviderUnavailable: as `Access.identify`.
    """
    user = await gateway.access.identify(token_of(request))
    gateway.rates.take(user.name)
    return user


def form_token(request: Request) -> str:
    """Return what each form of a page has to carry: only pages of ours know it."""
    key = token_of(request).encode() or _OWN_KEY
    return hmac.new(key, b"galley form", hashlib.sha256).hexdigest()


def check_form(request: Request, given: str) -> None:
    """Return if a form is from a page of ours.

    Raises:
        CrossSite: if not.
    """
    if not hmac.compare_digest(given.encode(), form_token(request).encode()):
        raise CrossSite("its form is not from a page of this gateway, or from before the last login")


def usable(token: str) -> str:
    """Return why a token cannot be kept in cookies; empty if it can."""
    if not token.isascii() or not token.isprintable() or set(token) & set(' ;,"\\'):
        return "that is not a token"
    if len(token) > _LONGEST_TOKEN:
        return f"a token of {len(token)} characters does not fit into cookies; use one of a ServiceAccount"
    return ""


def _secure(request: Request) -> bool:
    # Without TLS a browser would not send a secure cookie back: then it is the proxy before us that has TLS,
    # and says so, or there is none.
    return request.headers.get("x-forwarded-proto", request.url.scheme) == "https"


def log_in(response: Response, request: Request, token: str) -> None:
    """Have the browser keep a token, until it is closed."""
    for at, name in enumerate(_names()):
        if piece := token[at * _PIECE : (at + 1) * _PIECE]:
            response.set_cookie(
                name, piece, path=_PATH, secure=_secure(request), httponly=True, samesite="strict"
            )
        elif name in request.cookies:
            response.delete_cookie(name, path=_PATH, httponly=True, samesite="strict")


def log_out(response: Response, request: Request) -> None:
    """Have the browser forget the token."""
    for name in _names():
        if name == COOKIE or name in request.cookies:
            response.delete_cookie(name, path=_PATH, httponly=True, samesite="strict")


class Attempt(msgspec.Struct, frozen=True):
    """A login at the provider that has begun, as the browser keeps it meanwhile."""

    state: str
    nonce: str
    verifier: str
    following: str
    """The page that was asked for."""


def new_attempt(following: str) -> Attempt:
    """Return a login that cannot be guessed."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    return Attempt(state, nonce, verifier, following)


def _attempt_cookie(request: Request) -> str:
    # With this prefix, a page of a sibling domain cannot plant a login of its own.
    return f"__Host-{_ATTEMPT}" if _secure(request) else _ATTEMPT


def begin(response: Response, request: Request, attempt: Attempt) -> None:
    """Have the browser keep a login that has begun; it is sent back when the provider redirects here."""
    value = base64.urlsafe_b64encode(msgspec.json.encode(attempt)).decode().rstrip("=")
    response.set_cookie(
        _attempt_cookie(request), value, max_age=_ATTEMPT_SECONDS, path="/", secure=_secure(request),
        httponly=True, samesite="lax",
    )  # fmt: skip


def begun(request: Request) -> Attempt | None:
    """Return the login that has begun in this browser; None if there is none."""
    given = request.cookies.get(_attempt_cookie(request), "")
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(given + "=="), type=Attempt)
    except (ValueError, *UNREADABLE):
        return None


def end(response: Response, request: Request) -> None:
    """Have the browser forget the login that has begun: it counts once."""
    response.delete_cookie(
        _attempt_cookie(request), path="/", secure=_secure(request), httponly=True, samesite="lax"
    )
