"""Logging in and out: with a token of the cluster, or at the OpenID provider."""

import hmac
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from galley_gateway.errors import LoginFailed, NotIdentified, PageNotFound, RequestInvalid
from galley_gateway.oidc.provider import Provider
from galley_gateway.pages import session
from galley_gateway.pages.page import Pages, onward
from galley_gateway.pages.paths import local_path

START: Final = "/ui/login/start"
CALLBACK: Final = "/ui/login/callback"
"""Where the provider sends people back to: a redirect address that it has to know."""

_FORM: Final = "application/x-www-form-urlencoded"
_LONGEST_ANSWER: Final = 4096
_MOST_FIELDS: Final = 50


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        RequestInvalid: if it is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise RequestInvalid("Content-Type", f"{kind[:80] or 'none'!r}", "use the form of the page")
    try:
        return dict(parse_qsl((await request.body()).decode(errors="replace"), max_num_fields=_MOST_FIELDS))
    except ValueError:
        wrong = f"more than {_MOST_FIELDS} fields"
        raise RequestInvalid("body", wrong, "use the form of the page") from None


async def with_token(pages: Pages, request: Request) -> Response:
    """Show the login page, or take the token that was pasted into it."""
    if request.method == "GET":
        query = request.query_params
        return await pages.login(request, local_path(query.get("next", "")), ended="ended" in query)
    form = await form_of(request)
    token, following = form.get("token", "").strip(), local_path(form.get("next", ""))
    if problem := session.usable(token):
        return await pages.login(request, following, problem)
    try:
        await pages.gateway.access.identify(token)
    except NotIdentified as error:
        return await pages.login(request, following, str(error))
    response = RedirectResponse(following, 303)
    session.log_in(response, request, token)
    return response


async def log_out(pages: Pages, request: Request) -> Response:
    """Forget the token."""
    del pages
    session.check_form(request, (await form_of(request)).get("csrf", ""))
    response = RedirectResponse("/ui/login?ended=1", 303)
    session.log_out(response, request)
    return response


def _provider(pages: Pages, request: Request) -> Provider:
    if pages.gateway.provider is None:
        raise PageNotFound(request.url.path)
    return pages.gateway.provider


async def start(pages: Pages, request: Request) -> Response:
    """Send the browser to the provider."""
    provider = _provider(pages, request)
    attempt = session.new_attempt(local_path(request.query_params.get("next", "")))
    url = await provider.authorization_url(attempt.state, attempt.nonce, attempt.verifier)
    response = RedirectResponse(url, 303)
    session.begin(response, request, attempt)
    return response


async def callback(pages: Pages, request: Request) -> Response:
    """Take what the provider answers, and go on to the page that was asked for."""
    provider = _provider(pages, request)
    attempt, query = session.begun(request), request.query_params
    if attempt is None or not hmac.compare_digest(attempt.state.encode(), query.get("state", "").encode()):
        raise LoginFailed(
            "it did not begin in this browser, was used already, or took longer than 10 minutes"
        )
    try:
        token = await _token(provider, attempt, request)
    except LoginFailed as error:
        response = await pages.problem(request, error)
        session.end(response, request)
        return response
    # A redirect would still count as one of the provider's, for which strict cookies are not sent.
    response = onward(attempt.following)
    session.log_in(response, request, token)
    session.end(response, request)
    return response


async def _token(provider: Provider, attempt: session.Attempt, request: Request) -> str:
    query = request.query_params
    if query.get("iss", provider.settings.issuer) != provider.settings.issuer:
        raise LoginFailed("another provider answered")
    if error := query.get("error"):
        raise LoginFailed(f"the provider answered {error[:80]!r}: {query.get('error_description', '')[:300]}")
    code = query.get("code", "")
    if not 0 < len(code) <= _LONGEST_ANSWER:
        raise LoginFailed("the provider answered without a code")
    token = await provider.exchange(code, attempt.verifier, attempt.nonce)
    if problem := session.usable(token):
        raise LoginFailed(problem)
    return token
