"""The application: operations, OpenAPI document and pages behind one door, and beside it the probes."""

from collections.abc import Collection
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from galley.errors import GalleyError
from galley_gateway import problem
from galley_gateway.api import audit, dead, openapi, queues, schedules, tasks, topics, workflows
from galley_gateway.door import Door
from galley_gateway.errors import GatewayError, MethodRefused, PageNotFound
from galley_gateway.gateway import Gateway
from galley_gateway.operation import Operation, reply, route
from galley_gateway.pages import routes as pages

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

    async def document(_: Request) -> Response:
        return reply(described)

    routes: list[BaseRoute] = [
        *(route(gateway, operation) for operation in OPERATIONS),
        *pages.routes(gateway),
        Route("/openapi.json", document),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _refused,
            GalleyError: _failed,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
    )
    return Door(app, gateway.limits, hosts)


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


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    refusal: GatewayError = PageNotFound(path)
    if error.status_code == 405:
        refusal = MethodRefused(request.method, path)
    return problem.answer(refusal, path)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, GalleyError)
    return problem.answer(error, request.url.path)


async def _gone(_: Request, error: Exception) -> Response:
    del error
    return Response(status_code=499)


async def _broken(request: Request, error: Exception) -> Response:
    """Tell of a mistake of ours, and nothing of its inside; uvicorn logs it."""
    del error
    return problem.answer(GalleyError("the gateway failed", "look at its log"), request.url.path)
