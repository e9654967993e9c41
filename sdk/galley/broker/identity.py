"""The credentials of a connection: read at each connect, and renewed by a reconnect before they expire.

A server ends a connection at the second its credentials end. So once half of their time is over the
connection looks whether newer ones have come, and if so is dropped and made again with those: that is an
ordinary reconnection, at a moment that differs from one client to the next.
"""

import base64
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from nats.errors import Error as NatsError

from galley.broker.creds_file import Credentials, parse_creds, read_creds
from galley.broker.errors import AccessRefused, BrokerError, CredentialsExpired
from galley.errors import CredentialsInvalid, GalleyError

Source: TypeAlias = Path | Callable[[], str]
"""Where credentials are from: a file, or a function that returns what would be in it."""

_REFUSALS: Final = ("authorization violation", "authentication expired", "authentication revoked")
"""How a server reports that authentication failed or expired."""

_LOOK_FROM: Final = 0.5
_LOOK_SPREAD: Final = 0.1
"""Newer credentials are looked for after so much of the time that is left, differently for each."""

_LOOKS: Final = 20
_LONGEST_PAUSE_SECONDS: Final = 60.0
_SHORTEST_PAUSE_SECONDS: Final = 0.05


class Identity:
    """The credentials of one connection."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._made_at = 0.0
        self._share = 0.0
        self.present: Credentials | None = None
        """Those the connection was last made with, or was to be."""

    @property
    def name(self) -> str:
        """Where the credentials are from, for people."""
        return str(self._source) if isinstance(self._source, Path) else "our own credentials"

    def read(self) -> Credentials:
        """Return the credentials as they are now.

        Raises:
            CredentialsInvalid: if there are none.
        """
        if isinstance(self._source, Path):
            return read_creds(self._source)
        return parse_creds(self._source(), self.name)

    def sign(self, nonce: str) -> bytes:
        """Return the proof that we hold the key; called for each connection, and before `token`.

        Raises:
            NatsError: there are no credentials; whatever else is raised here ends the library's tries.
        """
        try:
            self.present = self.read()
            signature = _signature(self.present.seed, nonce)
        except GalleyError as error:
            raise NatsError(str(error)) from error
        self._made_at = time.time()
        self._share = _LOOK_FROM + _LOOK_SPREAD * random.random()  # noqa: S311 - spreads load, hides nothing
        return base64.b64encode(signature)

    def token(self) -> bytearray:
        """Return the token that goes with the signature, though the file may have changed in between."""
        assert self.present is not None
        return bytearray(self.present.token.encode())

    def pause(self, now: float) -> float:
        """Return for how many seconds there is no need to look for newer credentials."""
        if self.present is None or not self.present.claims.exp:
            return _LONGEST_PAUSE_SECONDS
        left = self.present.claims.exp - self._made_at
        again = min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, left / _LOOKS))
        return max(again, self._made_at + left * self._share - now)

    def renewed(self, now: float) -> bool:
        """Whether it is time for newer credentials than those of the connection, and there are some."""
        present = self.present
        if present is None or now < self._made_at + (present.claims.exp - self._made_at) * self._share:
            return False
        try:
            found = self.read()
        except GalleyError:
            return False  # those we have are good until they end
        return found.claims.exp == 0 or found.claims.exp > present.claims.exp > 0


def refusal(identity: Identity | None, server: str, problem: str) -> BrokerError | None:
    """Return the error for a server's message, or None if it is not about authentication."""
    if not any(words in problem.lower() for words in _REFUSALS):
        return None
    if identity is None or identity.present is None:
        return AccessRefused(server, "", problem)
    if identity.present.ended(time.time()):
        end = datetime.fromtimestamp(identity.present.claims.exp, UTC)
        return CredentialsExpired(server, identity.name, f"on {end:%Y-%m-%d at %H:%M:%S} UTC")
    return AccessRefused(server, identity.name, problem)


def _signature(seed: str, nonce: str) -> bytes:
    # Without authentication, none of this has to be installed.
    try:
        from nacl.signing import SigningKey  # noqa: PLC0415

        # Two bytes say whose key it is, two are a checksum.
        key = base64.b32decode(seed + "=" * (-len(seed) % 8))[2:-2]
        return SigningKey(key).sign(nonce.encode()).signature
    except ImportError as error:
        raise CredentialsInvalid("our credentials", f"they need PyNaCl installed ({error})") from None
    except ValueError as error:
        raise CredentialsInvalid("the credentials", f"the key is malformed: {error}") from None
