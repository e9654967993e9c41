"""Signatures of requests, after Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from galley.encryption.errors import EncryptionKeysInvalid
from galley.encryption.keys import read_entries
from galley_worker.errors import SigningKeysInvalid

log = logging.getLogger(__name__)

PREFIX: Final = "whsec_"
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64

LOOK_SECONDS: Final = 5.0
"""How often the files are read again while they are in use."""


def signature(keys: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: one signature by each key, so that keys can be replaced.

    Args:
        keys: that the receiver may know; it accepts the request if it knows one.
        message_id: the header `webhook-id`; has no dot.
        timestamp: the header `webhook-timestamp`.
        body: what is sent.
    """
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    made = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return " ".join(f"v1,{each}" for each in made)


class SigningKeys:
    """The keys in a folder or in the manifest of a Secret; read again, so that they can be replaced live."""

    def __init__(self, source: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys.

        Args:
            source: a folder with a file for each key, as a mounted Secret, or the manifest of a Secret.
            clock: seconds of a clock that never goes back.

        Raises:
            SigningKeysInvalid: if they cannot be used.
        """
        self._source, self._clock = source, clock
        self._looked_at = clock()
        self._keys = _read(source)

    def now(self) -> tuple[bytes, ...]:
        """Return the keys that sign, as they are or were some seconds ago."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._clock()
            try:
                self._keys = _read(self._source)
            except SigningKeysInvalid as error:
                # Those of before still sign: a receiver that knows them is better than none.
                log.warning("signing keys not read again", extra={"error": str(error), "hint": error.hint})
        return self._keys


def _read(source: Path) -> tuple[bytes, ...]:
    try:
        entries = read_entries(source)
    except EncryptionKeysInvalid as error:
        raise SigningKeysInvalid(str(source), str(error)) from None
    return _parsed(str(source), entries)


def _parsed(source: str, entries: Mapping[str, bytes]) -> tuple[bytes, ...]:
    if not entries:
        raise SigningKeysInvalid(source, "there is no key in it")
    keys = []
    for name, value in sorted(entries.items()):
        try:
            text = value.decode("ascii").strip().removeprefix(PREFIX)
            key = base64.b64decode(text, validate=True)
        except (UnicodeDecodeError, binascii.Error):
            raise SigningKeysInvalid(source, f"entry {name!r} is not {PREFIX} and base64") from None
        if not LEAST_BYTES <= len(key) <= MOST_BYTES:
            problem = f"entry {name!r} has {len(key)} bytes, a key has {LEAST_BYTES} to {MOST_BYTES}"
            raise SigningKeysInvalid(source, problem)
        keys.append(key)
    return tuple(keys)
