"""The application: operations, OpenAPI document and pages behind one door, and beside it the probes."""

from collections.abc import Collection, Iterable
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Scope

from galley.errors import GalleyError
from galley_gateway import problem
from galley_gateway.api import audit, dead, openapi, queues, schedules, tasks, topics, workflows
from galley_gateway.door import Door
from galley_gateway.errors import GatewayError, GatewayFailed, MethodRefused, PageNotFound
from galley_gateway.gateway import Gateway
from galley_gateway.operation import Operation, reply, route
from galley_gateway.pages.page import Pages
from galley_gateway.pages.paths import for_people
from galley_gateway.pages.render import problem_page
from galley_gateway.pages.routes import DONE, routes_of_pages

OPERATIONS: Final[tuple[Operation, ...]] = (
    *tasks.OPERATIONS, *queues.OPERATIONS, *dead.OPERATIONS, *schedules.OPERATIONS, *workflows.OPERATIONS,
    *topics.OPERATIONS, *audit.OPERATIONS,
)  # fmt: skip


def application(gateway: Gateway, hosts: Collection[str] = ()) -> ASGIApp:
    """Return the application of a gateway.

    Args:
        gateway: what it is over.
        hosts: names a request may be for; empty admits all.
    """
    described = openapi.document(OPERATIONS)
    pages = Pages(gateway, DONE)

    async def document(_: Request) -> Response:
        return reply(described)

    routes: list[BaseRoute] = [
        *(route(gateway, operation) for operation in OPERATIONS),
        *routes_of_pages(pages),
        Route("/openapi.json", document),
    ]

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        refusal: GatewayError = PageNotFound(path)
        if error.status_code == 405:
            refusal = MethodRefused(request.method, path)
        if for_people(request.scope):
            response = await pages.nothing_there(request, refusal)
        else:
            response = problem.answer(refusal, path)
        if isinstance(refusal, MethodRefused):
            # The framework names those of the first route alone.
            response.headers["Allow"] = ", ".join(sorted(_methods_at(routes, request.scope)))
        return response

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, GalleyError)
        return told(error, request.scope)

    async def broken(request: Request, error: Exception) -> Response:
        """Tell of a mistake of ours, and nothing of its inside; uvicorn logs it."""
        del error
        return told(GatewayFailed(), request.scope)

    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: refused,
            GalleyError: failed,
            ClientDisconnect: _gone,
            Exception: broken,
        },
    )
    return Door(app, gateway.limits, hosts, told)


def _methods_at(routes: Iterable[BaseRoute], scope: Scope) -> set[str]:
    """Return the methods that a path takes."""
    there = (each for each in routes if each.matches(scope)[0] is not Match.NONE)
    return {method for each in there if isinstance(each, Route) for method in each.methods or ()}


def told(error: GalleyError, scope: Scope) -> Response:
    """Return what tells of an error: a page to people, a problem document to programs."""
    return problem_page(error) if for_people(scope) else problem.answer(error, scope["path"])


def health(gateway: Gateway) -> ASGIApp:
    """Return the application with the probes and the figures of a gateway, for a port of their own."""

    async def live(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_: Request) -> Response:
        if gateway.closing.is_set():
            return PlainTextResponse("ends\n", 503)
        if not gateway.broker.connected:
            return PlainTextResponse("there is no connection to the broker\n", 503)
        return PlainTextResponse("ready\n")

    async def figures(_: Request) -> Response:
        gateway.metrics.waits.set(gateway.places.open)
        return PlainTextResponse(gateway.metrics.page())

    return Starlette(routes=[Route("/livez", live), Route("/readyz", ready), Route("/metrics", figures)])


async def _gone(_: Request, error: Exception) -> Response:
    del error
    return Response(status_code=499)
