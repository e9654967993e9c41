"""The routes of the dashboard: pages, actions, login and what pages are made of."""

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from galley.errors import GalleyError
from galley_gateway.access import Right
from galley_gateway.api.dead import Which
from galley_gateway.errors import NotIdentified, PageNotFound, RequestInvalid
from galley_gateway.gateway import Gateway
from galley_gateway.operation import perform
from galley_gateway.pages import session
from galley_gateway.pages.beats import Beats
from galley_gateway.pages.content import PAGES, by_id, find_task
from galley_gateway.pages.page import Look, Page, Pages, local_path

_DONE: Final = {
    "pauseQueue": "The queue is paused.",
    "resumeQueue": "The queue is resumed.",
    "cancelTask": "The task is cancelled, or had ended already.",
    "retryTask": "The task runs again.",
    "dropDeadLetter": "The dead letter is deleted.",
    "redriveDeadLetters": "The dead letters run again.",
    "suspendSchedule": "The schedule is suspended.",
    "resumeSchedule": "The schedule is resumed.",
    "cancelWorkflow": "The workflow is cancelled, or had ended already.",
    "redriveWorkflow": "What did not succeed runs again, as a new workflow.",
    "runSchedule": "A task of the schedule was submitted.",
}
"""The actions of the pages, and what is said when one was done."""

_FORM: Final = "application/x-www-form-urlencoded"
_KINDS: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the routes of the dashboard of a gateway."""
    pages = Pages(gateway, _DONE)

    async def home(request: Request) -> Response:
        return await pages.home(request)

    return [
        Route("/", home),
        Route("/ui", home),
        Route("/ui/", home),
        Route("/ui/login", _guarded(pages, _login), methods=["GET", "POST"]),
        Route("/ui/logout", _guarded(pages, _logout), methods=["POST"]),
        Route("/ui/do/{operation}", _guarded(pages, _act), methods=["POST"]),
        *(_static(name) for name in ("app.css", "app.js", "icon.svg")),
        Route("/ui/{namespace}/find", _guarded(pages, _find)),
        *(Route(f"/ui/{{namespace}}{page.path}", _served(pages, page)) for page in PAGES),
    ]


Serve = Callable[[Pages, Request], Awaitable[Response]]


def _guarded(pages: Pages, serve: Serve) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            return await serve(pages, request)
        except GalleyError as error:
            return await pages.problem(request, error)

    return guarded


def _served(pages: Pages, page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def served(request: Request) -> Response:
        return await pages.serve(page, request)

    return served


def _static(name: str) -> Route:
    content = (files("galley_gateway.pages") / "static" / name).read_bytes()
    headers = {"Cache-Control": "no-cache", "ETag": f'"{hashlib.sha256(content).hexdigest()[:20]}"'}
    kind = _KINDS[name.rpartition(".")[2]]

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return Route(f"/ui/static/{name}", serve)


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise RequestInvalid("Content-Type", f"{kind[:80] or 'none'!r}", "use the form of the page")
    return dict(parse_qsl((await request.body()).decode(errors="replace"), max_num_fields=50))


async def _login(pages: Pages, request: Request) -> Response:
    if request.method == "GET":
        return await pages.login(request, local_path(request.query_params.get("next", "")))
    form = await _form(request)
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


async def _logout(pages: Pages, request: Request) -> Response:
    del pages
    session.check_form(request, (await _form(request)).get("csrf", ""))
    response = RedirectResponse("/ui/login", 303)
    session.log_out(response)
    return response


async def _act(pages: Pages, request: Request) -> Response:
    """Do what a form asks for: the same operation as in the API, with the same check of rights."""
    name = request.path_params["operation"]
    if name not in _DONE:
        raise PageNotFound(request.url.path)
    form = await _form(request)
    session.check_form(request, form.get("csrf", ""))
    user = await session.user_of(pages.gateway, request)
    operation = by_id(name)
    place = {name: form.get(name, "") for name in ("namespace", "queue", "name")}

    async def body() -> Any:
        return Which(form.get("handler") or None, form.get("reason") or None)

    await perform(pages.gateway, operation, user, request, place, body)
    back = local_path(form.get("back", ""))
    return RedirectResponse(f"{back}{'&' if '?' in back else '?'}{urlencode({'done': name})}", 303)


async def _find(pages: Pages, request: Request) -> Response:
    try:
        user = await session.user_of(pages.gateway, request)
    except NotIdentified:
        return RedirectResponse("/ui/login", 303)
    place = request.path_params
    for right in (Right("list", "taskqueues"), Right("get", "tasks")):
        await pages.check(user, right, place)
    client = pages.gateway.client(place["namespace"])
    query = dict(request.query_params)
    return await find_task(Look(pages.gateway, user, request, client, "", "", query, Beats(), "", "", {}))
