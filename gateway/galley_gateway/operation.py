"""Operations: each names its path, its right, what it takes and what it answers.

Routes, checks of rights and the OpenAPI document are all made of these, so none can lack one of them.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from galley.audit import Actor, Writer, acting
from galley.bounds import is_queue_name
from galley.calls import check_queue_name
from galley.client import AsyncClient
from galley.errors import GalleyError
from galley.logs import log_often
from galley.tracing import carried, id_in, traceparent_in
from galley_gateway import problem
from galley_gateway.access import Right, User
from galley_gateway.body import body_of, raw_body_of
from galley_gateway.errors import GatewayFailed, NotIdentified, RequestInvalid
from galley_gateway.gateway import Gateway

log = logging.getLogger(__name__)

ROOT: Final = "/api/v1"
_BEARER: Final = "bearer "


@dataclass(frozen=True)
class Parameter:
    """A parameter of a query or a header."""

    name: str
    meaning: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    where: str = "query"


TRACE: Final = Parameter(
    "traceparent",
    "The W3C trace that the task, or the event, belongs to. One that cannot be read is left out.",
    where="header",
)


@dataclass(frozen=True)
class Ask:
    """One request, after the checks."""

    gateway: Gateway
    user: User
    client: AsyncClient
    queue: str
    """Empty where the operation is not about one."""
    name: str
    """The id of the task, or the name of the schedule; empty where there is none."""
    query: dict[str, str]
    body: Any
    request: Request

    right: Right
    """What was checked."""

    @property
    def namespace(self) -> str:
        """The namespace of the client."""
        return self.client.namespace

    async def check_again(self) -> None:
        """Return if the user still has the right, by a token that still counts: a request can stay open long.

        Raises:
            NotIdentified, NotPermitted, AccessUnknown: if not.
        """
        access = self.gateway.access
        user = await access.identify(token_of(self.request))
        await access.check(user, self.right, self.namespace, self.queue)


Run = Callable[[Ask], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """One thing a request can ask for."""

    id: str
    method: str
    path: str
    """Below `/api/v1/namespaces/{namespace}`."""
    right: Right
    run: Run
    summary: str
    meaning: str = ""
    takes: type | None = None
    takes_raw: tuple[str, ...] = ()
    """Further types of a body, which is handed on as bytes."""
    takes_raw_with: str = ""
    """How headers begin with which a body is handed on as bytes, whatever its type."""
    answers: type | None = None
    status: tuple[tuple[int, str], ...] = ((200, "Done."),)
    """The statuses of success, the first one with the answer."""
    parameters: tuple[Parameter, ...] = ()
    example: Any = None
    example_answer: Any = None
    fails: tuple[type[GalleyError], ...] = ()
    streams: bool = False
    """Whether it answers with server-sent events."""
    waits: bool = False
    """Whether it answers when a task has ended."""

    @property
    def full_path(self) -> str:
        """The whole path."""
        return f"{ROOT}/namespaces/{{namespace}}{self.path}"

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


async def perform(  # noqa: PLR0917 - what a request is made of
    gateway: Gateway,
    operation: Operation,
    user: User,
    request: Request,
    place: Mapping[str, str],
    body: Callable[[], Awaitable[Any]],
) -> Response:
    """Check the rights of a user, and do what an operation is about.

    Args:
        gateway: that was asked.
        operation: what is asked for.
        user: who asks.
        request: the request.
        place: `namespace`, `queue`, and `id` or `name`, as far as the operation has them.
        body: reads the body; called once the user is known to have the right.

    Raises:
        GalleyError: if it cannot be done.
    """
    namespace, queue = place["namespace"], place.get("queue", "")
    if not is_queue_name(namespace):
        raise RequestInvalid(
            "namespace", f"{namespace[:80]!r} is not the name of a namespace", "use that of a namespace"
        )
    if "queue" in place:
        check_queue_name(queue)
    # Before anything is looked up: without the right, nothing tells whether a queue or a task is there.
    await gateway.access.check(user, operation.right, namespace, queue)
    ask = Ask(
        gateway,
        user,
        gateway.client(namespace),
        queue,
        place.get("id", place.get("name", "")),
        dict(request.query_params) if request.scope["query_string"] else {},
        await body(),
        request,
        operation.right,
    )
    # The lines of an audit that this makes name the user, and where the request came from.
    before = acting.set(Actor(Writer.GATEWAY, user.name, gateway.proxies.origin(request.scope)))
    given = request.headers.get("traceparent")
    trace = traceparent_in(given) if given else ""
    traced = carried.set(trace)
    try:
        response = await operation.run(ask)
    finally:
        acting.reset(before)
        carried.reset(traced)
    if operation.changes:
        log_often(
            log,
            logging.INFO,
            "changed over http",
            {
                "operation": operation.id,
                "user": user.name,
                "namespace": namespace,
                "queue": queue,
                "task": ask.name,
                **({"trace": id_in(trace)} if trace else {}),
            },
        )
    return response


def token_of(request: Request) -> str:
    """Return the bearer token of a request, empty if it has none.

    Raises:
        NotIdentified: if it brings another kind of credentials.
    """
    given = request.headers.get("authorization", "")
    if not given:
        return ""
    if not given.lower().startswith(_BEARER):
        raise NotIdentified("its Authorization header is not `Bearer TOKEN`")
    return given[len(_BEARER) :].strip()


class _Endpoint:
    """Serves requests with a function that answers errors itself: no layers of the framework are between."""

    def __init__(self, serve: Callable[[Request], Awaitable[Response]]) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._serve(Request(scope, receive, send))
        await response(scope, receive, send)


def route(gateway: Gateway, operation: Operation) -> Route:
    """Return the route of an operation, for programs that send a bearer token."""
    seconds = gateway.metrics.seconds.labels(operation.id)

    async def serve(request: Request) -> Response:
        began = time.perf_counter()
        try:
            response = await answered(request)
        except ClientDisconnect:
            raise
        except Exception:  # a mistake of ours, which the application answers
            gateway.metrics.requests.labels(operation.id, GatewayFailed.status).inc()
            raise
        gateway.metrics.requests.labels(operation.id, response.status_code).inc()
        if not operation.waits:
            seconds.observe(time.perf_counter() - began)
        return response

    async def answered(request: Request) -> Response:
        try:
            user = await gateway.access.identify(token_of(request))
            gateway.rates.take(user.name)

            async def body() -> Any:
                if operation.takes is None:
                    return None
                if operation.takes_raw_with and any(
                    name.startswith(operation.takes_raw_with) for name in request.headers
                ):
                    return await raw_body_of(request)
                return await body_of(request, operation.takes, operation.takes_raw)

            return await perform(gateway, operation, user, request, request.path_params, body)
        except GalleyError as error:
            return problem.answer(error, request.scope["path"])

    return Route(operation.full_path, _Endpoint(serve), methods=[operation.method], name=operation.id)
