"""An OpenID provider: its addresses, its keys, and the exchange of a code for an ID token (with PKCE)."""

import asyncio
import base64
import hashlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlencode

import aiohttp
import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from galley_gateway.access import User
from galley_gateway.errors import LoginFailed, NotIdentified, ProviderUnavailable
from galley_gateway.limits import Rates
from galley_gateway.oidc.mapping import ClaimMapping, ClaimsRefused

log = logging.getLogger(__name__)

T = TypeVar("T")

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures that are accepted: those by keys of the provider, so neither `none` nor a shared secret."""

_LEEWAY_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 10.0
_ANSWER_BYTES: Final = 1024 * 1024
_FRESH_SECONDS: Final = 3600.0
"""How long addresses and keys of the provider are used before they are read again."""
_KEYS_AGAIN_SECONDS: Final = 10.0
"""Time between two looks for a key that is not known: tokens of strangers must not keep the provider busy."""
_AWAY_SECONDS: Final = 5.0
"""How long a provider that did not answer counts as away: no other request waits for it meanwhile."""
_EXCHANGES: Final = 20.0
"""Codes a second that are exchanged."""


@dataclass(frozen=True)
class OidcSettings:
    """A client of a provider."""

    issuer: str
    client_id: str
    redirect_url: str
    """The address the provider sends people back to."""
    client_secret: str = field(default="", repr=False)
    scopes: str = "openid profile email"
    mapping: ClaimMapping = field(default_factory=ClaimMapping)


class _Addresses(msgspec.Struct):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str = ""
    token_endpoint_auth_methods_supported: list[str] = []


class _Tokens(msgspec.Struct):
    id_token: str


def _ids_of(keys: KeySet) -> set[str | None]:
    return {key.kid for key in keys}


class Provider:
    """A provider, asked when something of it is needed: it may be away while the gateway starts."""

    def __init__(
        self,
        settings: OidcSettings,
        trust: ssl.SSLContext | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Describe it.

        Args:
            settings: who we are to it.
            trust: by which its certificate is checked; None means the authorities of the system.
            clock: seconds since 1970.
        """
        self.settings = settings
        self._trust, self._clock = trust, clock
        self._addresses: _Addresses | None = None
        self._keys: KeySet | None = None
        self._read_at = self._keys_at = 0.0
        self._failed_at, self._failure = 0.0, ""
        self._reading = asyncio.Lock()
        self._exchanges = Rates(_EXCHANGES)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Provider":
        """Open what connections are made with."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(_ANSWER_SECONDS),
            connector=aiohttp.TCPConnector(ssl=self._trust if self._trust is not None else True),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close connections."""
        assert self._session is not None
        await self._session.close()

    async def authorization_url(self, state: str, nonce: str, verifier: str) -> str:
        """Return the address at which a person logs in.

        Raises:
            ProviderUnavailable: if the provider does not say.
        """
        challenge = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.settings.redirect_url,
            "scope": self.settings.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = (await self._known()).authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def logout_url(self) -> str:
        """Return the address at which people log out of the provider; empty if it has none, or is away."""
        try:
            return (await self._known()).end_session_endpoint
        except ProviderUnavailable:
            return ""

    async def exchange(self, code: str, verifier: str, nonce: str) -> str:
        """Return the ID token that a code stands for.

        Raises:
            LoginFailed: if the provider does not accept the code, or its token is not one for this login.
            RateExceeded: if too many codes come.
            ProviderUnavailable: if the provider does not answer.
        """
        self._exchanges.take("")
        known = await self._known()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings.redirect_url,
            "code_verifier": verifier,
        }
        headers = {}
        by_post = known.token_endpoint_auth_methods_supported == ["client_secret_post"]
        if self.settings.client_secret and not by_post:
            pair = f"{quote_plus(self.settings.client_id)}:{quote_plus(self.settings.client_secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = self.settings.client_id
            if self.settings.client_secret:
                form["client_secret"] = self.settings.client_secret
        status, body = await self._ask("POST", known.token_endpoint, data=form, headers=headers)
        if status != 200:
            raise LoginFailed(f"the provider did not accept its code (HTTP {status})")
        try:
            token = msgspec.json.decode(body, type=_Tokens).id_token
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise LoginFailed("the provider answered without an ID token") from None
        try:
            claims = await self._verified(token)
            self.settings.mapping.user_of(claims)
        except (NotIdentified, ClaimsRefused) as error:
            raise LoginFailed(str(error)) from None
        if claims.get("nonce") != nonce:
            raise LoginFailed("its ID token was made for another login")
        return token

    def issued(self, token: str) -> bool:
        """Return whether a token says that it is from this provider; nothing of it is verified."""
        parts = token.split(".")
        if len(parts) != 3:
            return False
        try:
            claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=="))
        except (ValueError, msgspec.MsgspecError, RecursionError):
            return False
        return isinstance(claims, dict) and claims.get("iss") == self.settings.issuer

    async def identify(self, token: str) -> User:
        """Return whose ID token it is.

        Raises:
            NotIdentified: if it is not one of the provider for this client, or no longer valid.
            ProviderUnavailable: if the keys of the provider are needed, and it does not answer.
        """
        claims = await self._verified(token)
        try:
            return self.settings.mapping.user_of(claims)
        except ClaimsRefused as error:
            raise NotIdentified(str(error)) from None

    async def _verified(self, token: str) -> dict[str, Any]:
        try:
            header = jws.extract_compact(token.encode()).headers()
            keys = await self._keys_with(header.get("kid"))
            claims: dict[str, Any] = jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims
            self._rules().validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError) as error:  # whatever stands in its header
            log.info("id token refused", extra={"problem": str(error)[:200]})
            raise NotIdentified("its ID token is wrong, has expired, or is for another application") from None
        audiences = claims["aud"]
        ours = self.settings.client_id
        if claims.get("azp", ours) != ours or (
            isinstance(audiences, list) and len(audiences) > 1 and "azp" not in claims
        ):
            raise NotIdentified("its ID token was made for another application")
        return claims

    def _rules(self) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": self.settings.issuer},
            aud={"essential": True, "value": self.settings.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )

    async def _keys_with(self, kid: Any) -> KeySet:
        """Return the keys of the provider, read again if one is asked for that is new."""
        known = self._keys
        if known is not None:
            # Whose key is known does not wait behind one who makes us ask the provider.
            waits = self._outdated(known, kid)
            if not waits or (self._reading.locked() and kid in _ids_of(known)):
                return known
        async with self._reading:
            keys = self._keys
            if keys is None or self._outdated(keys, kid):
                try:
                    keys = await self._asked(self._read_keys)
                    self._keys, self._keys_at = keys, self._clock()
                except ProviderUnavailable:
                    # Those that are known hold until the provider is back.
                    if keys is None:
                        raise
            return keys

    def _outdated(self, keys: KeySet, kid: Any) -> bool:
        age = self._clock() - self._keys_at
        unknown = kid is not None and kid not in _ids_of(keys)
        return age > _FRESH_SECONDS or (unknown and age > _KEYS_AGAIN_SECONDS)

    async def _asked(self, read: Callable[[], Awaitable[T]]) -> T:
        """Return what the provider says; while it counts as away, fail at once. For one request at a time.

        Raises:
            ProviderUnavailable: if it does not answer, or did not a moment ago.
        """
        issuer = self.settings.issuer
        if self._failure and 0 <= self._clock() - self._failed_at < _AWAY_SECONDS:
            raise ProviderUnavailable(issuer, self._failure)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                found = await read()
        except (ProviderUnavailable, TimeoutError) as error:
            said = error.problem if isinstance(error, ProviderUnavailable) else "it did not answer in time"
            self._failed_at, self._failure = self._clock(), said
            raise ProviderUnavailable(issuer, said) from error
        self._failure = ""
        return found

    async def _read_keys(self) -> KeySet:
        address = (await self._read_addresses()).jwks_uri
        body = await self._get(address)
        try:
            return KeySet.import_key_set(msgspec.json.decode(body))
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ProviderUnavailable(self.settings.issuer, f"its keys cannot be read: {error}") from error

    async def _known(self) -> _Addresses:
        if (known := self._fresh_addresses()) is not None:
            return known
        async with self._reading:
            if (known := self._fresh_addresses()) is not None:
                return known
            return await self._asked(self._read_addresses)

    def _fresh_addresses(self) -> _Addresses | None:
        if self._clock() - self._read_at < _FRESH_SECONDS:
            return self._addresses
        return None

    async def _read_addresses(self) -> _Addresses:
        if (known := self._fresh_addresses()) is not None:
            return known
        issuer = self.settings.issuer
        body = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            found = msgspec.json.decode(body, type=_Addresses)
        except (ValueError, RecursionError) as error:
            raise ProviderUnavailable(issuer, f"its addresses cannot be read: {error}") from error
        if found.issuer != issuer:
            raise ProviderUnavailable(issuer, f"it calls itself {found.issuer[:200]!r}")
        self._addresses, self._read_at = found, self._clock()
        return found

    async def _get(self, url: str) -> bytes:
        status, body = await self._ask("GET", url)
        if status != 200:
            raise ProviderUnavailable(self.settings.issuer, f"HTTP {status} at {url}")
        return body

    async def _ask(self, method: str, url: str, **rest: Any) -> tuple[int, bytes]:
        assert self._session is not None
        try:
            async with self._session.request(method, url, allow_redirects=False, **rest) as answer:
                body = await answer.content.read(_ANSWER_BYTES)
                while (more := await answer.content.read(_ANSWER_BYTES)) and len(body) < _ANSWER_BYTES:
                    body += more
                return answer.status, body
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("openid provider does not answer", extra={"url": url, "error": repr(error)[:200]})
            raise ProviderUnavailable(self.settings.issuer, str(error) or type(error).__name__) from error
