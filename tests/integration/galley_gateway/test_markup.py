"""Markup, scripts, links and odd characters in all that others write: pages show them as text."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Final
from urllib.parse import quote

import aiohttp
import pytest

from galley_gateway.access import OpenAccess, Right, User
from galley_gateway.pages import page
from galley_gateway.pages.content import PAGES
from galley_local.nats_server import NatsServer
from tests.support.evil_namespace import BRIEF, EVIL, ROOM, SHOWS, evil, evil_workers, write_evil
from tests.support.gateways import Served, served


class Seen(HTMLParser):
    """What a browser makes of a page: elements, their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def places(self) -> set[str]:
        """The fields whose whole content is on the page, as it is or as JSON."""
        text = _bare("".join(self.texts))
        written = (EVIL, json.dumps(EVIL)[1:-1], json.dumps(EVIL, ensure_ascii=False)[1:-1], BRIEF)
        return {
            field for field in re.findall(r"\[([a-z ]+)\]", text)
            if any(f"{_bare(_spelled_out(each))}[{field}]" in text for each in written)
        }  # fmt: skip


def _spelled_out(text: str) -> str:
    for each in HIDDEN:
        text = text.replace(each, f"\\u{ord(each):04x}")
    return text


HIDDEN: Final = "\u202e\u2066\u200b"
"""The characters of the evil text that cannot be seen."""


def _bare(text: str) -> str:
    # What stands between backticks is shown as code; an event of a page has no carriage returns.
    return text.replace("`", "").replace("\r", "").replace("\\r", "").replace("\\x0d", "")


RUNS: Final = {"script", "img", "iframe", "object", "embed", "base", "style", "template", "video", "image"}
LEADS: Final = ("href", "src", "action", "formaction", "xlink:href", "srcdoc", "poster", "data")


def wrong_in(html: str) -> list[str]:
    """Return what of a page could run something, lead elsewhere, or is not an element of ours."""
    found = re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u2069\ufeff]", html)
    for tag, attributes in Seen(html).elements:
        if tag in RUNS and (tag, attributes) != ("script", {"src": "/ui/static/app.js", "defer": ""}):
            found.append(f"<{tag} {attributes}>")
        for name, value in attributes.items():
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name.startswith("on") or name == "style":
                found.append(f"<{tag} {name}={value!r}>")
            if name in LEADS and not re.match("/ui/|#live$", value):
                found.append(f"<{tag} {name}={value!r}>")
    return found


def test_what_is_not_escaped_is_found() -> None:
    assert wrong_in(EVIL)
    assert wrong_in(f'<input value="{EVIL}">')
    assert wrong_in("<a href='javascript:evil()'>x</a>")
    assert wrong_in("<p onclick=evil()>x</p>")
    assert not wrong_in("<a href='/ui/x/queues'>javascript:evil()</a>")
    assert Seen("<p>[text]</p>").places == set()


@pytest.fixture(scope="module")
def written(nats_server: NatsServer) -> str:
    """The address of a NATS with the evil namespace."""
    asyncio.run(write_evil(nats_server.url))
    return nats_server.url


@pytest.fixture
async def room(written: str) -> AsyncIterator[Served]:
    """A gateway over that namespace, for a user with an evil name."""
    async with evil_workers(written), served(written, ROOM, NamedAccess()) as found:
        yield found


class NamedAccess(OpenAccess):
    """Admits everyone to everything, under a name that is evil."""

    login = True

    async def identify(self, token: str) -> User:
        del token
        return User(evil("user"))

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        """Admit."""


def test_each_page_is_among_those_that_are_looked_at() -> None:
    looked = [re.compile(re.sub(r"\{\w+\}", "[^/?]+", each.path)) for each in PAGES]
    assert all(any(path.fullmatch(known) for known in SHOWS) for path in looked)


@pytest.mark.parametrize("path", SHOWS)
async def test_what_others_write_is_text_on_each_page(room: Served, path: str) -> None:
    answer = await room.ask("GET", f"{room.address}/ui/{ROOM}{path}")
    assert answer.status == 200, answer
    assert wrong_in(answer.body) == []
    assert SHOWS[path] <= Seen(answer.body).places, path
    policy = answer.headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_each_line_of_output_is_one_on_the_page(room: Served) -> None:
    answer = await room.ask("GET", f"{room.address}/ui/{ROOM}/queues/drills/tasks/runs")
    assert '</bdi>\n<span class="stream">stdout</span> <bdi>after</bdi>\n</pre>' in answer.body


LIVE: Final = {**SHOWS, "/queues/drills/workers": {*SHOWS["/queues/drills/workers"], "heartbeat"}}


@pytest.mark.parametrize("path", SHOWS)
async def test_what_others_write_is_text_in_each_live_update(
    room: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "LOOK_SECONDS", 0.1)
    url = f"{room.address}/ui/{ROOM}{path}{'&' if '?' in path else '?'}live=1"
    async with asyncio.timeout(30), room.session.get(url) as answer:
        assert answer.content_type == "text/event-stream"
        async for name, data in events_of(answer):
            # None begins within another: neither is there one of another name, nor a page without its end.
            assert (name, data[-8:].strip()) == ("page", "</html>"), data
            assert wrong_in(data) == []
            if LIVE[path] <= Seen(data).places:
                return
    raise AssertionError(f"the stream ended before {LIVE[path]} was there")


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str]]:
    """Yield the events of a stream as a browser takes them, to which a carriage return ends a line, too."""
    waiting = ""
    async for piece, _ in answer.content.iter_chunks():
        waiting += piece.decode()
        *whole, waiting = re.split(r"(?:\r\n|\n|\r){2}", waiting)
        for block in whole:
            lines = [line.partition(": ") for line in re.split(r"\r\n|\n|\r", block)]
            data = [text for name, _, text in lines if name == "data"]
            if data:
                yield next((text for name, _, text in lines if name == "event"), "message"), "\n".join(data)


async def test_a_path_that_leads_nowhere_is_text_in_the_page_that_says_so(room: Served) -> None:
    for path in (f"/ui/{ROOM}/{quote(evil('path'), safe='')}", f"/ui/{quote(evil('path'), safe='')}/queues"):
        answer = await room.ask("GET", f"{room.address}{path}", Accept="text/html")
        assert answer.status == 404, path
        assert wrong_in(answer.body) == []
