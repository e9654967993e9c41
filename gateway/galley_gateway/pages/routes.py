"""The routes of the dashboard: pages, actions, login and what pages are made of."""

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from galley.errors import GalleyError
from galley_gateway.access import Right
from galley_gateway.api.dead import Which
from galley_gateway.errors import NotIdentified, PageNotFound
from galley_gateway.operation import perform
from galley_gateway.pages import login, session
from galley_gateway.pages.beats import Beats
from galley_gateway.pages.content import PAGES, by_id, find_task
from galley_gateway.pages.page import Look, Page, Pages
from galley_gateway.pages.paths import local_path

DONE: Final = {
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

_KINDS: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def routes_of_pages(pages: Pages) -> list[BaseRoute]:
    """Return the routes of the dashboard."""

    async def home(request: Request) -> Response:
        return await pages.home(request)

    return [
        Route("/", home),
        Route("/ui", home),
        Route("/ui/", home),
        Route("/ui/login", _guarded(pages, login.with_token), methods=["GET", "POST"]),
        Route(login.START, _guarded(pages, login.start)),
        Route(login.CALLBACK, _guarded(pages, login.callback)),
        Route("/ui/logout", _guarded(pages, login.log_out), methods=["POST"]),
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


async def _act(pages: Pages, request: Request) -> Response:
    """Do what a form asks for: the same operation as in the API, with the same check of rights."""
    name = request.path_params["operation"]
    if name not in DONE:
        raise PageNotFound(request.url.path)
    form = await login.form_of(request)
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
        return pages.to_login(request, live=False)
    place = request.path_params
    for right in (Right("list", "taskqueues"), Right("get", "tasks")):
        await pages.check(user, right, place)
    client = pages.gateway.client(place["namespace"])
    query = dict(request.query_params)
    return await find_task(Look(pages.gateway, user, request, client, "", "", query, Beats(), "", "", {}))
