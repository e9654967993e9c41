"""Encryption of objects: each has a key of its own, which travels in the encrypted part of its task.

AES-256-GCM, one part at a time. The nonce is the number of the part, and whether it is the last is
authenticated, so parts cannot be exchanged, repeated or left out. A key encrypts one object only.
"""

import base64
import os
from typing import Any, Final

from galley.broker.objects import PART
from galley.encryption.token import KEY_BYTES, cipher

TAG: Final = 16
CLEAR_PART: Final = PART - TAG
"""Bytes of content in a part that is encrypted."""


class Seal:
    """Encrypts and decrypts the parts of one object."""

    def __init__(self, key: bytes) -> None:
        self._cipher: Any = cipher(key)
        self.text = base64.b64encode(key).decode()
        """The key as a reference carries it."""

    @classmethod
    def new(cls) -> "Seal":
        """Return one with a key of its own."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def of(cls, text: str) -> "Seal":
        """Return that of a reference.

        Raises:
            ValueError: if it is no key.
        """
        key = base64.b64decode(text, validate=True)
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes")
        return cls(key)

    def seal(self, number: int, data: bytes, *, last: bool) -> bytes:
        """Return a part as it is stored."""
        return bytes(self._cipher.encrypt(number.to_bytes(12, "big"), data, b"last" if last else b"part"))

    def open(self, number: int, data: bytes, *, last: bool) -> bytes | None:
        """Return the content of a part; None if it was altered."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        try:
            return bytes(self._cipher.decrypt(number.to_bytes(12, "big"), data, b"last" if last else b"part"))
        except (InvalidTag, ValueError):
            return None
