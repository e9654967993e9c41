"""Two OpenID providers: one of a library, and one that answers what a test wants, true or not."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import Key, KeySet, RSAKey

from tests.support.port import free_port

CLIENT: Final = "galley"
SECRET: Final = "a secret of ours"


@contextmanager
def provider_of_a_library(*people: dict[str, Any]) -> Iterator[str]:
    """Run a provider that knows some people, by their claims; returns its issuer."""
    port = free_port()
    known = [word for claims in people for word in ("--user-claims", json.dumps(claims))]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port),
         "-n", "true", *known],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    # Another site than 127.0.0.1, as a provider most often is.
    issuer = f"http://localhost:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{issuer}/jwks", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
        yield issuer
    finally:
        process.kill()
        process.wait()


@cache
def _key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "one"})


class HostileProvider:
    """A provider whose ID tokens and answers a test decides on. It checks PKCE as a good one does."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.key = _key()
        self.published: list[Key] = [self.key]
        self.token: Any = ""
        """What the next exchange answers with."""
        self.status = 200
        self.challenge = ""
        self.asked: list[str] = []
        self.reached = asyncio.Event()
        """Set when it was asked while `held`."""
        self.held: asyncio.Event | None = None
        """While it is set to an event, nothing is answered before that happens, and then with an error."""
        self.addresses: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=7",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
        }

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return those of a good token, but for some; None leaves one out."""
        now = int(time.time())
        all_of_them = {
            "iss": self.issuer, "aud": CLIENT, "sub": "ada", "exp": now + 300, "iat": now,
            "groups": ["oncall", "system:masters"], **changed,
        }  # fmt: skip
        return {name: value for name, value in all_of_them.items() if value is not None}

    def signed(self, key: Any = None, alg: str = "RS256", kid: str = "one", **changed: Any) -> str:
        return jwt.encode({"alg": alg, "kid": kid}, self.claims(**changed), key or self.key, algorithms=[alg])

    def without_key(self, secret: bytes | None = None, **changed: Any) -> str:
        """Return a token without a signature, or with one by a secret that is shared."""
        parts = ({"alg": "none" if secret is None else "HS256", "kid": "one"}, self.claims(**changed))
        text = b".".join(_encoded(json.dumps(part).encode()) for part in parts)
        signature = b"" if secret is None else _encoded(hmac.digest(secret, text, "sha256"))
        return (text + b"." + signature).decode()

    async def _serve(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.held is not None:
            self.reached.set()
            await self.held.wait()
            return web.Response(status=503)
        if request.path == "/.well-known/openid-configuration":
            return web.json_response(self.addresses)
        if request.path == "/jwks":
            return web.json_response(KeySet(self.published).as_dict())
        form = await request.post()
        sent = _encoded(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        if request.path != "/token" or sent.decode() != self.challenge:
            return web.json_response({"error": "invalid_grant"}, status=400)
        body = {"id_token": self.token} if isinstance(self.token, str) else self.token
        return web.json_response(body, status=self.status)


@asynccontextmanager
async def hostile_provider() -> AsyncIterator[HostileProvider]:
    """Serve one for as long as the block."""
    provider = HostileProvider(free_port())
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", provider._serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", urlsplit(provider.issuer).port).start()
    try:
        yield provider
    finally:
        await runner.cleanup()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def query_of(url: str) -> dict[str, str]:
    """Return the parameters of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
