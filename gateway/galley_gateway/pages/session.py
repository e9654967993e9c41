"""Who looks at a page: a token in a cookie that scripts cannot read, and a second one in each form.

There is no store of sessions: any replica of the gateway serves any request, and a token that the cluster no
longer accepts is worth nothing here either.
"""

import hashlib
import hmac
import secrets
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from galley_gateway.access import User
from galley_gateway.errors import CrossSite
from galley_gateway.gateway import Gateway

COOKIE: Final = "galley-token"
_PATH: Final = "/ui"
_LONGEST_TOKEN: Final = 3800
"""Browsers keep cookies of up to 4 KiB."""

_OWN_KEY: Final = secrets.token_bytes(32)


def token_of(request: Request) -> str:
    """Return the token of the cookie; empty if there is none."""
    return request.cookies.get(COOKIE, "")


async def user_of(gateway: Gateway, request: Request) -> User:
    """Return who looks.

    Raises:
        NotIdentified, AccessUnknown: as `Access.identify`.
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
    """Return why a token cannot be kept in a cookie; empty if it can."""
    if not token.isascii() or not token.isprintable() or set(token) & set(' ;,"\\'):
        return "that is not a token"
    if len(token) > _LONGEST_TOKEN:
        return f"a token of {len(token)} characters does not fit into a cookie; use one of a ServiceAccount"
    return ""


def log_in(response: Response, request: Request, token: str) -> None:
    """Have the browser keep a token, until it is closed."""
    # Without TLS a browser would not send a secure cookie back: then it is the proxy before us that has TLS,
    # and says so, or there is none.
    secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
    response.set_cookie(COOKIE, token, path=_PATH, secure=secure, httponly=True, samesite="strict")


def log_out(response: Response) -> None:
    """Have the browser forget the token."""
    response.delete_cookie(COOKIE, path=_PATH, httponly=True, samesite="strict")
