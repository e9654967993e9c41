"""People log in at an OpenID provider, and no forged, foreign or repeated answer logs a person in."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import pytest
from joserfc.jwk import RSAKey

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley_gateway.access import Right, User
from galley_gateway.errors import NotIdentified, NotPermitted, ProviderUnavailable
from galley_gateway.oidc.access import OidcAccess
from galley_gateway.oidc.provider import OidcSettings, Provider
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.gateways import Served, served
from tests.support.openid import (
    CLIENT,
    SECRET,
    HostileProvider,
    hostile_provider,
    provider_of_a_library,
    query_of,
)

NAMESPACE: Final = "login"
PAGE: Final = f"/ui/{NAMESPACE}/queues"


class OncallAccess:
    """A cluster that knows the token `of-the-cluster`, and lets the group `oidc:oncall` look at queues."""

    login = True

    async def identify(self, token: str) -> User:
        if token != "of-the-cluster":
            raise NotIdentified("its token is not known")
        return User("robot", groups=("oidc:oncall",))

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        del queue
        if "oidc:oncall" not in user.groups or right.verb != "list":
            raise NotPermitted(user.name, right.verb, right.resource, namespace)


class Person:
    """A browser that follows no redirect by itself."""

    def __init__(self, site: Served) -> None:
        self._site = site
        self.cookies: dict[str, str] = {}

    async def get(self, path: str, method: str = "GET", **rest: Any) -> tuple[int, str, Any]:
        """Return the status, the body and the headers."""
        url = path if path.startswith("http") else f"{self._site.address}{path}"
        headers = {
            **rest.pop("headers", {}),
            "Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items()),
        }
        async with self._site.session.request(
            method, url, allow_redirects=False, headers=headers, **rest
        ) as answer:
            for name, morsel in answer.cookies.items():
                self.cookies.pop(name, None)
                if morsel["max-age"] != "0":
                    self.cookies[name] = morsel.value
            return answer.status, await answer.text(), answer.headers

    async def begin(self, following: str = PAGE) -> str:
        """Begin a login, and return the address at the provider."""
        status, _, headers = await self.get(f"/ui/login/start?next={following}")
        assert status == 303
        return str(headers["Location"])


class Site(NamedTuple):
    gateway: Served
    hostile: HostileProvider
    provider: Provider


@pytest.fixture
async def site(nats_server: NatsServer) -> AsyncIterator[Site]:
    """A gateway whose provider is hostile."""
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, a_queue("red", namespace=NAMESPACE))
    async with hostile_provider() as hostile:
        settings = OidcSettings(hostile.issuer, CLIENT, "http://127.0.0.1/ui/login/callback", SECRET)
        async with Provider(settings) as provider:
            access = OidcAccess(provider, OncallAccess())
            async with served(nats_server.url, NAMESPACE, access, provider=provider) as gateway:
                yield Site(gateway, hostile, provider)


@pytest.fixture
def person(site: Site) -> Person:
    return Person(site.gateway)


async def answered(site: Site, person: Person, token: Any, **query: str) -> tuple[int, str, Any]:
    """Log in with a provider that answers with a token; `NONCE` in it is that of the login."""
    asked = query_of(await person.begin())
    site.hostile.challenge = asked["code_challenge"]
    site.hostile.token = token(asked["nonce"]) if callable(token) else token
    answer = {"state": asked["state"], "code": "c0de", **query}
    return await person.get("/ui/login/callback", params={k: v for k, v in answer.items() if v != "-"})


async def test_a_person_logs_in_at_a_provider_looks_and_logs_out(nats_server: NatsServer) -> None:
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, a_queue("red", namespace=NAMESPACE))
    people = ({"sub": "ada", "groups": ["oncall"]}, {"sub": "eve", "groups": []})
    with provider_of_a_library(*people) as issuer:
        settings = OidcSettings(issuer, CLIENT, "http://127.0.0.1/ui/login/callback", SECRET)
        async with Provider(settings) as provider:
            access = OidcAccess(provider, OncallAccess())
            async with served(nats_server.url, NAMESPACE, access, provider=provider) as gateway:
                for name, status in (("ada", 200), ("eve", 403)):
                    person = Person(gateway)
                    assert (await person.get(PAGE))[0] == 303
                    assert "Log in with localhost" in (await person.get("/ui/login"))[1]
                    at_provider = await person.begin()
                    async with gateway.session.post(
                        at_provider, data={"sub": name}, allow_redirects=False
                    ) as answer:
                        back = answer.headers["Location"]
                    done = await person.get("/ui/login/callback", params=query_of(back))
                    assert done[0] == 200, done
                    assert f'url={PAGE}"' in done[1]
                    cookie = done[2].getall("Set-Cookie")[0].lower()
                    assert all(word in cookie for word in ("samesite=strict", "httponly", "path=/ui"))
                    page = await person.get(PAGE)
                    assert page[0] == status
                    assert f"oidc:{name}" in page[1]
                    # The same answer of the provider, once more, and in another browser.
                    for again in (person, Person(gateway)):
                        assert (await again.get("/ui/login/callback", params=query_of(back)))[0] == 400
                    csrf = re.search(r'name="csrf" value="(\w+)"', page[1])
                    assert csrf is not None
                    out = await person.get("/ui/logout", "POST", data={"csrf": csrf[1]})
                    assert (out[0], person.cookies) == (303, {})
                    assert f"{issuer}/oauth2/end_session" in (await person.get(out[2]["Location"]))[1]
                    assert (await person.get(PAGE))[0] == 303


WRONG: Final[dict[str, Any]] = {
    "another audience": {"aud": "another"},
    "an audience in a list of others": {"aud": [CLIENT, "another"]},
    "made for another of the audience": {"aud": [CLIENT, "another"], "azp": "another"},
    "another issuer": {"iss": "https://evil.example"},
    "expired": {"exp": 1_000_000_000},
    "without an end": {"exp": None},
    "from the future": {"iat": 4_000_000_000},
    "without a subject": {"sub": None},
    "without a nonce": {"nonce": None},
    "of another login": {"nonce": "another"},
    "with a name of Kubernetes": {"sub": ""},
    "with a name that is no text": {"sub": 7},
    "with groups that are no list": {"groups": {"a": 1}},
    "with too many groups": {"groups": [f"g{number}" for number in range(1001)]},
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_token_that_is_wrong_in_one_thing_logs_no_person_in(
    site: Site, person: Person, what: str
) -> None:
    status, text, _ = await answered(
        site, person, lambda nonce: site.hostile.signed(**{"nonce": nonce, **WRONG[what]})
    )
    assert (status, "LoginFailed" in text) == (400, True), text
    assert person.cookies == {}
    if "nonce" not in WRONG[what]:  # that is a matter of the login alone
        bearer = f"Bearer {site.hostile.signed(**WRONG[what])}"
        refused = await site.gateway.ask("GET", site.gateway.path("red"), Authorization=bearer)
        assert refused.status == 401


async def test_a_token_that_the_provider_did_not_sign_logs_no_person_in(site: Site, person: Person) -> None:
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    public = site.hostile.key.as_pem(private=False)
    good = site.hostile.signed
    forged: list[Any] = [
        lambda nonce: site.hostile.without_key(nonce=nonce),
        lambda nonce: good(stranger, nonce=nonce),
        lambda nonce: good(stranger, kid="two", nonce=nonce),
        lambda nonce: site.hostile.without_key(public, nonce=nonce),
        lambda nonce: site.hostile.without_key(SECRET.encode(), nonce=nonce),
        lambda nonce: good(nonce=nonce)[:-8] + "AAAAAAAA",
        "not.a.token", "", "a.b", "....", "\u00e9.\u00e9.\u00e9", {"access_token": "x"},
        {"id_token": 7}, ["x"],
    ]  # fmt: skip
    for token in forged:
        status, text, _ = await answered(site, person, token)
        assert (status, "LoginFailed" in text) == (400, True), token
        assert person.cookies == {}
    site.hostile.status = 500
    assert (await answered(site, person, lambda nonce: good(nonce=nonce)))[0] == 400


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"state": "-"}, "did not begin in this browser"),
        ({"state": ""}, "did not begin in this browser"),
        ({"state": "guess"}, "did not begin in this browser"),
        ({"code": "-"}, "without a code"),
        ({"code": "x" * 5000}, "without a code"),
        ({"iss": "https://evil.example"}, "another provider answered"),
        ({"error": "access_denied", "error_description": "<b>no"}, "access_denied"),
    ],
)
async def test_an_answer_that_is_not_to_our_question_logs_no_person_in(
    site: Site, person: Person, query: dict[str, str], says: str
) -> None:
    status, text, _ = await answered(site, person, lambda nonce: site.hostile.signed(nonce=nonce), **query)
    assert (status, says in text, "<b>" in text) == (400, True, False)
    assert "galley-token" not in person.cookies


async def test_the_answer_to_one_browser_is_worth_nothing_in_another(site: Site, person: Person) -> None:
    asked, other = query_of(await person.begin()), Person(site.gateway)
    theirs = query_of(await other.begin())
    # The attacker's code with the victim's state: PKCE binds a code to the browser that asked for it.
    site.hostile.challenge = theirs["code_challenge"]
    site.hostile.token = site.hostile.signed(nonce=asked["nonce"])
    stolen = await person.get("/ui/login/callback", params={"state": asked["state"], "code": "theirs"})
    assert (stolen[0], person.cookies) == (400, {})
    for cookie in ("", "x", "e30", "%%%", "e" * 5000):
        other.cookies = {"galley-login": cookie}
        answer = await other.get("/ui/login/callback", params={"state": asked["state"], "code": "c"})
        assert (answer[0], "galley-token" in other.cookies) == (400, False)


@pytest.mark.parametrize(
    "following",
    [
        "https://evil.example/", "//evil.example", "/ui//evil.example", "/ui/\\evil.example", "/evil",
        "javascript:alert(1)", "/ui/do/pauseQueue", "/ui/logout", "/ui/login/start", "%22%3E",
        "/ui/x%0d%0aSet-Cookie:%20a=b",
    ],
)  # fmt: skip
async def test_a_login_leads_to_pages_of_ours_alone(site: Site, person: Person, following: str) -> None:
    asked = query_of(await person.begin(following))
    site.hostile.challenge = asked["code_challenge"]
    site.hostile.token = site.hostile.signed(nonce=asked["nonce"])
    status, text, _ = await person.get("/ui/login/callback", params={"state": asked["state"], "code": "c"})
    assert status == 200
    assert re.findall(r"url=([^\"]*)\"", text) == ["/ui/"]
    assert re.findall(r'href="(/ui/|http[^"]*|//[^"]*)"', text) == ["/ui/"]


async def test_groups_of_kubernetes_are_never_handed_out_by_a_provider(site: Site) -> None:
    user = await site.provider.identify(site.hostile.signed(sub="ada"))
    assert user.name == "oidc:ada"
    assert user.groups == ("oidc:oncall", "oidc:system:masters", "system:authenticated")


async def test_a_session_ends_with_its_token_and_is_renewed_at_the_provider(
    site: Site, person: Person
) -> None:
    await answered(site, person, lambda nonce: site.hostile.signed(nonce=nonce))
    assert (await person.get(PAGE))[0] == 200
    person.cookies["galley-token"] = site.hostile.signed(exp=int(time.time()) - 60)
    status, _, headers = await person.get(f"{PAGE}?a=b")
    assert (status, headers["Location"]) == (303, f"/ui/login/start?next={PAGE.replace('/', '%2F')}%3Fa%3Db")
    assert "event: login" in (await person.get(f"{PAGE}?live=1"))[1]
    # From a link of another site, strict cookies come only after a step on a page of ours.
    person.cookies = {}
    onward = await person.get(PAGE, headers={"Sec-Fetch-Site": "cross-site"})
    assert (onward[0], f'url={PAGE}"' in onward[1]) == (200, True)


async def test_a_long_token_takes_several_cookies_and_one_that_is_too_long_is_refused(
    site: Site, person: Person
) -> None:
    groups = [f"team-{number}-{'x' * 40}" for number in range(120)]
    await answered(site, person, lambda nonce: site.hostile.signed(nonce=nonce, groups=["oncall", *groups]))
    assert set(person.cookies) == {"galley-token", "galley-token-1", "galley-token-2"}
    assert (await person.get(PAGE))[0] == 200
    # A shorter one leaves nothing of it behind.
    await answered(site, person, lambda nonce: site.hostile.signed(nonce=nonce))
    assert set(person.cookies) == {"galley-token"}
    many = [f"team-{number}-{'x' * 100}" for number in range(200)]
    status, text, _ = await answered(
        site, person, lambda nonce: site.hostile.signed(nonce=nonce, groups=many)
    )
    assert (status, "does not fit into cookies" in text) == (400, True)


async def test_tokens_of_the_cluster_work_beside_it_and_while_it_is_away(site: Site, person: Person) -> None:
    site.hostile.addresses["issuer"] = "https://evil.example"
    status, text, _ = await person.get("/ui/login/start")
    assert (status, "ProviderUnavailable" in text) == (503, True)
    assert (await person.get("/ui/login?ended=1"))[0] == 200
    person.cookies["galley-token"] = "of-the-cluster"
    assert (await person.get(PAGE))[0] == 200
    person.cookies["galley-token"] = site.hostile.signed()
    assert (await person.get(PAGE))[0] == 503


@pytest.mark.parametrize("body", [{"keys": []}, {"keys": [{"kty": "??"}]}, {"keys": 7}, [], {}])
async def test_keys_that_cannot_be_read_make_it_unavailable(
    site: Site, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joserfc.jwk.KeySet.as_dict", lambda _: body)
    with pytest.raises(ProviderUnavailable):
        await site.provider.identify(site.hostile.signed())


async def test_new_keys_are_found_and_known_ones_hold_while_it_is_away(nats_server: NatsServer) -> None:
    del nats_server
    now = time.time()
    async with hostile_provider() as hostile:
        settings = OidcSettings(hostile.issuer, CLIENT, "http://127.0.0.1/ui/login/callback")
        async with Provider(settings, clock=lambda: now) as provider:
            good = hostile.signed(exp=int(now) + 10**6)
            assert (await provider.identify(good)).name == "oidc:ada"
            second = RSAKey.generate_key(2048, {"kid": "two"})
            rotated = hostile.signed(second, kid="two", exp=int(now) + 10**6)
            hostile.published.append(second)
            for _ in range(20):  # strangers cannot make it ask the provider for each of their tokens
                with pytest.raises(NotIdentified):
                    await provider.identify(rotated)
            assert hostile.asked.count("/jwks") == 1
            now += 11
            assert (await provider.identify(rotated)).name == "oidc:ada"
            hostile.addresses["jwks_uri"] = "http://127.0.0.1:1/jwks"
            now += 7200
            assert (await provider.identify(good)).name == "oidc:ada"


async def test_an_answer_without_end_is_not_read_to_its_end(site: Site, person: Person) -> None:
    status, _, _ = await answered(site, person, {"id_token": "x" * 3_000_000})
    assert status == 400


async def test_without_a_provider_there_is_no_login_at_one(nats_server: NatsServer) -> None:
    async with served(nats_server.url, NAMESPACE, OncallAccess()) as gateway:
        for path in ("/ui/login/start", "/ui/login/callback?code=x&state=y"):
            assert (await Person(gateway).get(path))[0] == 404
        assert "Log in with" not in (await Person(gateway).get("/ui/login"))[1]


async def test_of_many_who_need_a_provider_that_is_away_one_waits_and_none_after_it() -> None:
    now = time.time()
    async with hostile_provider() as hostile:
        settings = OidcSettings(hostile.issuer, CLIENT, "http://127.0.0.1/ui/login/callback")
        async with Provider(settings, clock=lambda: now) as provider:
            hostile.held = asyncio.Event()
            asking = [asyncio.create_task(provider.identify(hostile.signed())) for _ in range(20)]
            asking += [asyncio.create_task(_begin(provider)) for _ in range(5)]
            async with asyncio.timeout(60):
                await hostile.reached.wait()
                hostile.held.set()
                answers = await asyncio.gather(*asking, return_exceptions=True)
            assert {type(answer) for answer in answers} == {ProviderUnavailable}
            assert len(hostile.asked) == 1
            hostile.held = None
            with pytest.raises(ProviderUnavailable, match="HTTP 503"):
                await provider.identify(hostile.signed())
            now += 6
            assert (await provider.identify(hostile.signed())).name == "oidc:ada"


async def test_known_keys_do_not_wait_while_a_stranger_makes_the_gateway_ask() -> None:
    now = time.time()
    async with hostile_provider() as hostile:
        settings = OidcSettings(hostile.issuer, CLIENT, "http://127.0.0.1/ui/login/callback")
        async with Provider(settings, clock=lambda: now) as provider:
            good = hostile.signed(exp=int(now) + 10**6)
            await provider.identify(good)
            hostile.held = asyncio.Event()
            now += 11
            stranger = RSAKey.generate_key(2048, {"kid": "strange"})
            waits = asyncio.create_task(provider.identify(hostile.signed(stranger, kid="strange")))
            async with asyncio.timeout(60):
                await hostile.reached.wait()
                assert (await provider.identify(good)).name == "oidc:ada"
                now += 7200  # old enough to be read again, which the stranger is about to do
                assert (await provider.identify(good)).name == "oidc:ada"
                assert not waits.done()
                hostile.held.set()
                with pytest.raises(NotIdentified):
                    await waits
                assert (await provider.identify(good)).name == "oidc:ada"


async def test_a_provider_that_never_answers_is_waited_for_once_and_briefly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("galley_gateway.oidc.provider._ANSWER_SECONDS", 0.0)
    async with hostile_provider() as hostile:
        hostile.held = asyncio.Event()
        settings = OidcSettings(hostile.issuer, CLIENT, "http://127.0.0.1/ui/login/callback")
        async with Provider(settings) as provider:
            with pytest.raises(ProviderUnavailable, match="did not answer in time"):
                await provider.identify(hostile.signed())
        hostile.held.set()


async def _begin(provider: Provider) -> User:
    await provider.authorization_url("state", "nonce", "verifier")
    return User("never")
