"""What tells of an error: a page with a way back to people, a problem document to programs."""

import re
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from galley.errors import GalleyError
from galley_gateway.access import Right, User
from galley_gateway.errors import AccessUnknown, NotIdentified, NotPermitted
from galley_gateway.limits import Limits
from galley_gateway.pages.routes import DONE
from galley_local.nats_server import NatsServer
from tests.support.gateways import Answer, Served, served

BROWSER: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class MoodyAccess:
    """Knows the token `ada`, and fails at each check in the way it is told to."""

    login = True

    def __init__(self) -> None:
        self.fails: Exception | None = None

    async def identify(self, token: str) -> User:
        if token != "ada":
            raise NotIdentified("its token is not known")
        return User("ada")

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        del queue
        if self.fails is not None:
            raise self.fails
        if namespace == "theirs":
            raise NotPermitted(user.name, right.verb, right.resource, namespace)


class Visit:
    """Requests to a gateway as a browser sends them."""

    def __init__(self, api: Served, access: MoodyAccess) -> None:
        self.api, self.access = api, access

    async def __call__(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        given = {"Accept": BROWSER, "Cookie": "galley-token=ada", **headers}
        return await self.api.ask(method, f"{self.api.address}{path}", body, **given)


@pytest.fixture
async def visit(nats_server: NatsServer, worked: str) -> AsyncIterator[Visit]:
    access = MoodyAccess()
    limits = Limits(body_bytes=64 * 1024, body_seconds=0.5)
    async with served(nats_server.url, worked, access, limits, hosts=["127.0.0.1"]) as api:
        yield Visit(api, access)


def is_page(answer: Answer, status: int, reason: str) -> None:
    """Fail if an answer is no page of ours that tells of this and has a way to another one."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert f"{reason} · {status}" in answer.body
    assert 'role="alert"' in answer.body
    assert re.search(r'<a[^>]* href="/ui/[^"]*">(Back|Try again)</a>', answer.body)


NOWHERE: Final = (
    "/ui/nowhere",
    "/ui/ns/queues/a/b/c/d",
    "/ui/do/",
    "/ui/static/x.css",
    "/favicon.ico",
    "/x/y",
)


@pytest.mark.parametrize("path", NOWHERE)
async def test_an_unknown_path_is_a_page_with_a_way_back(visit: Visit, path: str) -> None:
    is_page(await visit(path), 404, "PageNotFound")
    is_page(await visit(path, Cookie="a=b"), 404, "PageNotFound")


async def test_who_is_logged_in_keeps_the_way_to_other_pages(visit: Visit) -> None:
    namespace = visit.api.namespace
    own = await visit(f"/ui/{namespace}/queuess")
    assert f'href="/ui/{namespace}/queues">Back' in own.body
    assert "Log out" in own.body
    theirs = await visit("/ui/theirs/queuess")
    assert 'href="/ui/theirs' not in theirs.body
    assert 'href="/ui/">Back' in theirs.body
    stranger = await visit(f"/ui/{namespace}/queuess", Cookie="a=b")
    assert f"/ui/{namespace}/queues" not in stranger.body.replace("/queuess", "")


async def test_a_method_that_a_path_does_not_take_says_which_it_does(visit: Visit) -> None:
    for path, method in (("/ui/do/pauseQueue", "GET"), ("/ui/logout", "GET"), ("/ui/", "DELETE")):
        answer = await visit(path, method)
        is_page(answer, 405, "MethodRefused")
        assert method not in answer.headers["Allow"]
        assert answer.headers["Allow"]
    api = await visit("/api/v1/namespaces/x/queues", "DELETE")
    assert (api.status, api.body["reason"], api.headers["Allow"]) == (405, "MethodRefused", "GET, HEAD")
    schedule = await visit("/api/v1/namespaces/x/queues/y/schedules/z", "PATCH")
    assert schedule.headers["Allow"] == "DELETE, GET, HEAD, PUT"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/problem+json", ""])
async def test_a_program_gets_a_problem_document(visit: Visit, accept: str) -> None:
    for path in ("/nowhere", "/api/v1/nowhere"):
        answer = await visit(path, Accept=accept)
        assert (answer.status, answer.body["reason"]) == (404, "PageNotFound")
        assert answer.headers["Content-Type"] == "application/problem+json"
    # A path of the API is for programs, also where a browser looks at it.
    assert (await visit("/api/v1/nowhere")).body["reason"] == "PageNotFound"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (NotPermitted("ada", "list", "tasks", "ns"), 403, "NotPermitted"),
        (AccessUnknown("it is away"), 503, "AccessUnknown"),
        (GalleyError("something new", "look"), 500, "GalleyError"),
        (RuntimeError("secret inside"), 500, "GatewayFailed"),
    ],
)
async def test_what_fails_behind_a_page_or_a_form_is_a_page(
    visit: Visit, error: Exception, status: int, reason: str
) -> None:
    visit.access.fails = error
    path = f"/ui/{visit.api.namespace}/queues/drills/tasks"
    answer = await visit(path)
    is_page(answer, status, reason)
    assert "secret inside" not in answer.body
    assert (f'href="{path}">Try again' in answer.body) == (status >= 500 and reason != "GatewayFailed")
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert (await visit("/api/v1/namespaces/x/queues", Authorization="Bearer ada")).status == status


async def test_what_the_door_refuses_is_a_page(visit: Visit) -> None:
    is_page(await visit("/ui/login", "POST", {}, Origin="http://evil.example"), 403, "CrossSite")
    is_page(await visit("/ui/", Host="evil.example"), 421, "HostRefused")
    is_page(await visit("/ui/login", "POST", "x" * 70_000), 413, "BodyTooLarge")
    program = await visit("/", Host="evil.example", Accept="*/*")
    assert program.body["reason"] == "HostRefused"


async def test_a_form_that_is_refused_leads_back_to_its_page(visit: Visit) -> None:
    address = visit.api.address
    page = f"/ui/{visit.api.namespace}/queues/drills?done=x"
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    async def refused_from(referer: str) -> str:
        headers = {"Accept": BROWSER, "Cookie": "galley-token=ada", "Referer": referer, **form}
        async with visit.api.session.post(
            f"{address}/ui/do/pauseQueue", data="csrf=wrong", headers=headers
        ) as answer:
            found = await answer.text()
            is_page(Answer(answer.status, found, answer.headers), 403, "CrossSite")
            return found

    assert f'href="{page}">Back' in await refused_from(f"{address}{page}")
    for elsewhere in (
        "http://evil.example/ui/x",
        f"{address}/ui/logout",
        f"{address}//evil.example/ui/",
        "javascript:x",
    ):
        assert 'href="/ui/">Back' in await refused_from(elsewhere)


@pytest.mark.parametrize("path", ["/ui/logout", *(f"/ui/do/{name}" for name in DONE)])
async def test_no_form_is_taken_without_the_token_of_its_page(visit: Visit, path: str) -> None:
    about = {"namespace": visit.api.namespace, "queue": "drills", "name": "x", "back": "/ui/"}
    headers = {"Accept": BROWSER, "Cookie": "galley-token=ada"}
    for given in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": "\u00e9"}):
        async with visit.api.session.post(
            f"{visit.api.address}{path}", data=about | given, headers=headers, allow_redirects=False
        ) as answer:
            is_page(Answer(answer.status, await answer.text(), answer.headers), 403, "CrossSite")
            assert "Set-Cookie" not in answer.headers
