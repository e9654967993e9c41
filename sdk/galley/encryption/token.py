"""How an encrypted payload is written: `g1.KEY.WRAPPED.TEXT`.

KEY is the id of the queue's key, WRAPPED the data key as that key wrapped it, TEXT a nonce of 12 bytes, the
ciphertext and its tag of 16 bytes; both as base64. Everything before TEXT is authenticated with it, and so is
what the payload is bound to: its task, and what of it is not encrypted.
"""

import binascii
import os
import re
from typing import Any, Final, NamedTuple

from galley.encryption.errors import PayloadAltered

KEY_BYTES: Final = 32
"""Length of every key: AES-256."""

WRAPPED_LIMIT: Final = 4096
"""Bytes a wrapped data key may have."""

KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""What a key may be called: it is the name of a Secret's entry, and stands in each payload."""

_FORMAT: Final = "g1"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


class Token(NamedTuple):
    """The parts of an encrypted payload."""

    key_id: str
    wrapped: bytes
    text: bytes
    """Nonce, ciphertext and tag."""
    head: str
    """All that stands before the text."""


def parse(token: str, subject: str) -> Token:
    """Return the parts of a token.

    Args:
        token: as it was found.
        subject: what it belongs to, for errors.

    Raises:
        PayloadAltered: if it is none.
    """
    head, dot, text = token.rpartition(".")
    parts = head.split(".")
    if not dot or len(parts) != 3 or parts[0] != _FORMAT or KEY_ID.fullmatch(parts[1]) is None:
        raise PayloadAltered(subject, f"{token[:40]!r} is no encrypted payload of a format known here")
    try:
        wrapped, sealed = _bytes(parts[2]), _bytes(text)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise PayloadAltered(subject, f"its encrypted payload is not base64: {error}") from None
    if not 0 < len(wrapped) <= WRAPPED_LIMIT or len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise PayloadAltered(subject, "its encrypted payload has been cut")
    return Token(parts[1], wrapped, sealed, head + ".")


def key_in(token: str) -> str:
    """Return the id of the key that encrypted a payload; empty if that cannot be told."""
    try:
        return parse(token, "").key_id
    except PayloadAltered:
        return ""


def _bytes(text: str) -> bytes:
    return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)


def _text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def cipher(key: bytes) -> Any:
    """Return AES-256-GCM with a key. The library is imported here, as most processes need none of it."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    return AESGCM(key)


def encrypt(key: Any, text: bytes, bound: bytes) -> bytes:
    """Return nonce, ciphertext and tag."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + bytes(key.encrypt(nonce, text, bound))


def decrypt(key: Any, sealed: bytes, bound: bytes) -> bytes | None:
    """Return the text, or None if it was altered, or is bound to something else."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415

    try:
        return bytes(key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound))
    except (InvalidTag, ValueError):
        return None


class DataKey:
    """A data key, and how the queue's key wrapped it."""

    __slots__ = ("_cipher", "head", "key_id", "uses")

    def __init__(self, key_id: str, wrapped: bytes, key: bytes) -> None:
        self.key_id = key_id
        self.head = f"{_FORMAT}.{key_id}.{_text(wrapped)}."
        self.uses = 0
        """Payloads encrypted with it here."""
        self._cipher = cipher(key)

    def seal(self, text: bytes, bound: bytes) -> str:
        """Return the token of a text, bound to what is told."""
        self.uses += 1
        return self.head + _text(encrypt(self._cipher, text, self.head.encode() + bound))

    def open(self, token: Token, bound: bytes, subject: str) -> bytes:
        """Return the text of a token.

        Raises:
            PayloadAltered: if it was altered, or is bound to something else.
        """
        text = decrypt(self._cipher, token.text, token.head.encode() + bound)
        if text is None:
            raise PayloadAltered(
                subject, "its encrypted payload was not written for it by a holder of the key"
            )
        return text
