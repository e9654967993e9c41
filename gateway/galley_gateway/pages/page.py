"""A page: its path, the rights it needs, and where its content is from."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from galley.bounds import is_queue_name
from galley.broker import queue_view
from galley.broker.control import hearing
from galley.calls import check_queue_name
from galley.client import AsyncClient
from galley.errors import GalleyError
from galley.remembered import Remembered
from galley_gateway import problem
from galley_gateway.access import Right, User
from galley_gateway.api.events import event, held
from galley_gateway.errors import NotIdentified, NotPermitted, PageNotFound
from galley_gateway.gateway import Gateway
from galley_gateway.operation import Operation
from galley_gateway.pages import session
from galley_gateway.pages.beats import Beats
from galley_gateway.pages.paths import FIRST, local_path, way_back
from galley_gateway.pages.render import NO_FRAME, TEMPLATES, problem_page

_NAMESPACES_SECONDS: Final = 10.0

LOOK_SECONDS: Final = 2.0
"""Time between two looks at what an open page shows."""


@dataclass(frozen=True)
class Look:
    """One look at a page."""

    gateway: Gateway
    user: User
    request: Request
    client: AsyncClient
    queue: str
    name: str
    query: dict[str, str]
    beats: Beats
    csrf: str
    here: str
    can: dict[str, bool]
    said: str = ""

    @property
    def namespace(self) -> str:
        """The namespace that is looked at."""
        return self.client.namespace

    def with_query(self, name: str, value: str) -> str:
        """Return the address of this page with another value of a parameter."""
        rest = {key: text for key, text in self.query.items() if key not in {name, "live", "done"} and text}
        return f"{self.request.url.path}?{urlencode({**rest, name: value})}"


@dataclass(frozen=True)
class Page:
    """One page of the dashboard."""

    path: str
    """Below `/ui/{namespace}`."""
    template: str
    title: str
    right: Right
    content: Callable[[Look], Awaitable[dict[str, Any]]]
    actions: tuple[Operation, ...] = ()
    hears_workers: bool = False


@dataclass
class Pages:
    """Renders pages for those who may see them."""

    gateway: Gateway
    done: dict[str, str] = field(default_factory=dict)
    """What to say when an action was done, by the id of its operation."""

    def __post_init__(self) -> None:
        """Make what is remembered, and templates, of which the first to look would wait for else."""
        for name in TEMPLATES.list_templates():
            TEMPLATES.get_template(name)
        self._with_queues: Remembered[list[str]] = Remembered(_NAMESPACES_SECONDS)

    async def serve(self, page: Page, request: Request) -> Response:
        """Return a page, or what keeps it up to date."""
        live = request.query_params.get("live") == "1"
        try:
            user = await session.user_of(self.gateway, request)
        except NotIdentified:
            return self.to_login(request, live=live)
        except GalleyError as error:
            return await self.problem(request, error)
        try:
            place = request.path_params
            if live and request.query_params.get("all") == "1":
                return Response(status_code=204)  # reads every task: not again and again
            if live:
                await self.check(user, page.right, place)
                return self._live(page, request, user)
            return HTMLResponse(await self._rendered(page, request, user, Beats()))
        except GalleyError as error:
            return await self.problem(request, error, user)

    async def check(self, user: User, right: Right, place: dict[str, str]) -> None:
        """Return if a user may see what is at a place.

        Raises:
            NotPermitted, AccessUnknown: if not.
            PageNotFound, QueueNameInvalid: if there can be no such place.
        """
        if not is_queue_name(place["namespace"]):
            raise PageNotFound(f"/ui/{place['namespace']}")
        if "queue" in place:
            check_queue_name(place["queue"])
        await self.gateway.access.check(user, right, place["namespace"], place.get("queue", ""))

    async def _rendered(self, page: Page, request: Request, user: User, beats: Beats) -> str:
        place = request.path_params
        # Asked again for each look: a right that was taken away ends what is open, too.
        await self.check(user, page.right, place)
        query = dict(request.query_params)
        can = {each.id: await self._may(user, each.right, place) for each in page.actions}
        look = Look(
            self.gateway, user, request, self.gateway.client(place["namespace"]), place.get("queue", ""),
            place.get("id", ""), query, beats, session.form_token(request), "", can,
            self.done.get(query.get("done", ""), ""),
        )  # fmt: skip
        kept = {key: text for key, text in query.items() if key not in {"live", "done"}}
        here = f"{request.url.path}?{urlencode(kept)}" if kept else request.url.path
        look = Look(**{**look.__dict__, "here": here})
        found = await page.content(look)
        title = " · ".join(each for each in (look.name, page.title, look.queue) if each)
        heading = {"title": title, "live": True, "page": look, "query": query}
        frame = await self._frame(request, user, look.namespace)
        return TEMPLATES.get_template(page.template).render({**frame, **heading, **found})

    async def _may(self, user: User, right: Right, place: dict[str, str]) -> bool:
        try:
            await self.gateway.access.check(user, right, place["namespace"], place.get("queue", ""))
        except NotPermitted:
            return False
        return True

    async def namespaces(self, user: User) -> list[str]:
        """Return the namespaces whose queues a user may list: names of others are not told.

        Raises:
            BrokerUnreachable, AccessUnknown: if that cannot be found out.
        """
        names = list(self.gateway.namespaces)
        if not names:
            names = await self._with_queues.get("", lambda: queue_view.namespaces(self.gateway.broker))
        listing = Right("list", "taskqueues")
        allowed = [await self._may(user, listing, {"namespace": name}) for name in names]
        return [name for name, may in zip(names, allowed, strict=True) if may]

    async def home(self, request: Request) -> Response:
        """Return the way to the first page."""
        try:
            user = await session.user_of(self.gateway, request)
            names = await self.namespaces(user)
        except NotIdentified:
            return self.to_login(request, live=False)
        except GalleyError as error:
            return await self.problem(request, error)
        if not names:
            refusal = NotPermitted(user.name, "list", "taskqueues", "*")
            return await self.problem(request, refusal, user)
        return RedirectResponse(f"/ui/{names[0]}/queues", 303)

    def to_login(self, request: Request, *, live: bool) -> Response:
        """Return the way to the login."""
        if live:
            return Response(event("login", b"{}"), media_type="text/event-stream")
        here = local_path(f"{request.url.path}?{request.url.query}".removesuffix("?"))
        if request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
            # A link in an alert or a chat: strict cookies are sent only on the way from a page of ours.
            return onward(here)
        provider = self.gateway.provider
        # Who was logged in at the provider a moment ago most often still is.
        known = provider is not None and provider.issued(session.token_of(request))
        at = "/ui/login/start" if known else "/ui/login"
        return RedirectResponse(f"{at}?{urlencode({'next': here})}", 303)

    async def _frame(self, request: Request, user: User | None, namespace: str) -> dict[str, Any]:
        names: list[str] = []
        if user is not None:
            with suppress(GalleyError):  # the page itself says what is wrong
                names = await self.namespaces(user)
        return {
            "namespace": namespace,
            "namespaces": names if namespace in names or not namespace else [*names, namespace],
            "user": user.name if user is not None else "",
            "login": self.gateway.access.login,
            "csrf": session.form_token(request),
        }

    def _live(self, page: Page, request: Request, user: User) -> StreamingResponse:
        place = self.gateway.places.taken(user.name, request.path_params["namespace"])
        return held(self.gateway, place, request, self._renderings(page, request, user))

    async def _renderings(self, page: Page, request: Request, user: User) -> AsyncGenerator[bytes, None]:
        place = request.path_params
        beats = Beats(listening=page.hears_workers)
        seen = ""
        async with AsyncExitStack() as stack:
            if page.hears_workers:
                await stack.enter_async_context(
                    hearing(self.gateway.broker, place["namespace"], place["queue"], beats.hear)
                )
            while True:
                try:
                    await session.user_of(self.gateway, request)
                    html = await self._rendered(page, request, user, beats)
                except NotIdentified:
                    yield event("login", b"{}")
                    return
                except GalleyError as error:
                    yield event("problem", msgspec.json.encode(problem.document(error)))
                    seen = ""
                else:
                    if html != seen:
                        seen = html
                        yield event("page", html.encode())
                await asyncio.sleep(LOOK_SECONDS)

    async def problem(self, request: Request, error: GalleyError, user: User | None = None) -> Response:
        """Return the page that tells of an error."""
        namespace = request.path_params.get("namespace", "")
        frame = await self._frame(request, user, namespace if is_queue_name(namespace) else "")
        return _telling(request, error, frame)

    async def nothing_there(self, request: Request, error: GalleyError) -> Response:
        """Return the page for a path that is none of ours; who is logged in keeps the way to other pages."""
        frame = NO_FRAME
        with suppress(GalleyError):
            user = await session.user_of(self.gateway, request)
            frame = await self._frame(request, user, "")
            meant = request.url.path.removeprefix(FIRST).partition("/")[0]
            frame |= {"namespace": meant if meant in frame["namespaces"] else ""}
        return _telling(request, error, frame)

    async def login(
        self, request: Request, following: str, problem: str = "", *, ended: bool = False
    ) -> Response:
        """Return the page to log in at."""
        provider = self.gateway.provider
        html = TEMPLATES.get_template("login.html").render(
            **await self._frame(request, None, ""),
            title="Log in",
            live=False,
            next=following,
            problem=problem,
            ended=ended,
            provider=urlsplit(provider.settings.issuer).hostname if provider is not None else "",
            logout_url=await provider.logout_url() if provider is not None and ended else "",
            start_url=f"/ui/login/start?{urlencode({'next': following})}",
        )
        return HTMLResponse(html, 401 if problem else 200)


def _telling(request: Request, error: GalleyError, frame: dict[str, Any]) -> Response:
    namespace = frame["namespace"]
    back = way_back(request, f"/ui/{namespace}/queues" if namespace else FIRST)
    passes = request.method == "GET" and problem.status_of(type(error)) in problem.PASSING
    again = local_path(f"{request.url.path}?{request.url.query}".removesuffix("?")) if passes else ""
    return problem_page(error, frame, back=back, again=again)


def onward(following: str) -> Response:
    """Return a page that goes on to another one of ours at once."""
    return HTMLResponse(TEMPLATES.get_template("onward.html").render(following=following))
