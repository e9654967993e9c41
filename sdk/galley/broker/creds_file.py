"""Credentials files for NATS: a signed token, and the key that proves possession of it.

The format is the one all NATS tools read (`.creds`). It is short-lived: the issuer puts a newer one in
its place long before it ends.
"""

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from galley.broker.permissions import INBOX
from galley.errors import CredentialsInvalid

_TOKEN: Final = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED: Final = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")


class _Rights(msgspec.Struct, frozen=True):
    allow: tuple[str, ...] = ()


class _User(msgspec.Struct, frozen=True):
    sub: _Rights = _Rights()


class Claims(msgspec.Struct, frozen=True):
    """What a token says, as far as a client has to know it."""

    name: str = ""
    iat: int = 0
    """When it was issued, in seconds since 1970."""
    exp: int = 0
    """When it ends; 0 means never."""
    nats: _User = _User()


@dataclass(frozen=True, slots=True)
class Credentials:
    """The content of a credentials file."""

    token: str
    seed: str = field(repr=False)
    claims: Claims

    @property
    def inbox(self) -> str:
        """The prefix that inboxes of these credentials must have."""
        allowed = (pattern for pattern in self.claims.nats.sub.allow if pattern.startswith(INBOX))
        return next(allowed, INBOX).removesuffix(".>")

    def ended(self, now: float) -> bool:
        """Whether they are no longer valid."""
        return 0 < self.claims.exp <= now


def format_creds(token: str, seed: str) -> str:
    """Return the text of a credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        "This key authenticates as this user: keep it as secret as a password.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def parse_creds(text: str, source: str) -> Credentials:
    """Return what a credentials file says.

    Args:
        text: its content.
        source: where it is from, for the message of an error.

    Raises:
        CredentialsInvalid: if it is no such file.
    """
    token, seed = _TOKEN.search(text), _SEED.search(text)
    if token is None or seed is None:
        missing = "token" if token is None else "key"
        raise CredentialsInvalid(source, f"there is no {missing} in it")
    try:
        payload = token[1].split(".")[1]
        plain = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        claims = msgspec.json.decode(plain, type=Claims)
    except (IndexError, ValueError) as error:
        raise CredentialsInvalid(source, f"its token cannot be read: {error}") from None
    return Credentials(token[1], seed[1], claims)


def read_creds(path: Path) -> Credentials:
    """Return the credentials in a file as it is now.

    Raises:
        CredentialsInvalid: if there is none that could be read.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CredentialsInvalid(str(path), problem) from error
    return parse_creds(text, str(path))
