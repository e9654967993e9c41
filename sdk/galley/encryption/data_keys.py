"""Data keys of one queue: the one that encrypts now, and those that were unwrapped lately."""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from galley.encryption.errors import (
    DecryptionKeyMissing,
    KeyServiceUnavailable,
    PayloadAltered,
)
from galley.encryption.keys import KeyProvider, Wrapped
from galley.encryption.token import KEY_BYTES, KEY_ID, WRAPPED_LIMIT, DataKey, parse

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 300.0
"""How long a data key encrypts before another one does."""

RENEW_USES: Final = 2**20
"""Payloads a data key encrypts at most: with random nonces of 96 bits far fewer than would be dangerous."""

KEPT: Final = 256
"""Unwrapped data keys kept: one for each process that submits or works, and five minutes."""

KEPT_SECONDS: Final = 3600.0
"""How long one is kept: so long a key that a key service withdrew can still be used."""

PATIENCE_SECONDS: Final = 10.0
"""How long a key service may take."""

_CALM_SECONDS: Final = 1.0
"""How long after a failure of a key service it is not asked again: those who waited meanwhile fail, too."""

T = TypeVar("T")


class DataKeys:
    """Encrypts and decrypts payloads of one queue."""

    def __init__(self, provider: KeyProvider, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: provider: the queue's keys; clock: seconds of a clock that never goes back."""
        self._provider, self._clock = provider, clock
        self._version = ""
        self._present: DataKey | None = None
        self._present_of = ""
        self._renew_at = 0.0
        self._opened: OrderedDict[tuple[str, bytes], tuple[DataKey, float]] = OrderedDict()
        self._asking = asyncio.Lock()
        self._failed: KeyServiceUnavailable | None = None
        self._failed_at = 0.0

    async def prepare(self) -> None:
        """See to it that `seal` has a data key that is not too old.

        Raises:
            KeyServiceUnavailable: if there is none and none can be had; an older one is used on.
        """
        if self._fresh():
            return
        async with self._asking:
            if self._fresh():
                return
            # Others may find new keys while the key service is asked with those of now.
            version = self._version
            try:
                self._present = await self._make()
            except KeyServiceUnavailable as error:
                if self._present is None:
                    raise
                log.warning("data key not renewed", extra={"error": str(error), "hint": error.hint})
                self._renew_at = self._clock() + _CALM_SECONDS
                self._present_of = self._version
            else:
                self._renew_at = self._clock() + RENEW_SECONDS
                self._present_of = version

    def seal(self, text: bytes, bound: bytes) -> str:
        """Return the token of a text. `prepare` has to come first."""
        assert self._present is not None
        return self._present.seal(text, bound)

    async def open(self, token: str, bound: bytes, subject: str) -> bytes:
        """Return the text of a token.

        Args:
            token: as it was found.
            bound: what it was bound to.
            subject: what it belongs to, for errors.

        Raises:
            DecryptionKeyMissing: if its key is not among those of the queue.
            PayloadAltered: if it was altered, or is bound to something else.
            KeyServiceUnavailable: if the key service does not answer.
        """
        parts = parse(token, subject)
        self._look()
        place = (parts.key_id, parts.wrapped)
        key = self._kept(place)
        if key is not None:
            return key.open(parts, bound, subject)
        async with self._asking:
            key = self._kept(place)
            if key is None:
                key = await self._unwrap(parts.key_id, parts.wrapped, subject)
        text = key.open(parts, bound, subject)
        # Only what a key of the queue was used for is kept: it cannot be filled with data keys of others.
        self._opened[place] = (key, self._clock() + KEPT_SECONDS)
        if len(self._opened) > KEPT:
            self._opened.popitem(last=False)
        return text

    def _kept(self, place: tuple[str, bytes]) -> DataKey | None:
        found = self._opened.get(place)
        if found is None:
            return None
        if self._clock() >= found[1]:
            del self._opened[place]
            return None
        self._opened.move_to_end(place)
        return found[0]

    def _look(self) -> None:
        """Drop what was unwrapped with earlier keys."""
        try:
            version = self._provider.version()
        except Exception as error:  # whatever code of others raises
            raise KeyServiceUnavailable(
                "say which keys it has", f"{type(error).__name__}: {error}"
            ) from error
        if version != self._version:
            self._version = version
            self._opened.clear()

    def _fresh(self) -> bool:
        self._look()
        return (
            self._present is not None
            and self._present.uses < RENEW_USES
            and self._clock() < self._renew_at
            and self._present_of == self._version
        )

    async def _make(self) -> DataKey:
        key = os.urandom(KEY_BYTES)

        async def wrap() -> Wrapped:
            try:
                answer: Any = await self._provider.wrap(key)
            except (DecryptionKeyMissing, PayloadAltered) as error:
                # No payload is to blame, which would end its task.
                problem = f"{error.reason}: {error}"
                raise KeyServiceUnavailable("wrap a data key", problem) from error
            key_id, data = answer
            if not isinstance(key_id, str):
                raise TypeError(f"it answered with a key id of type {type(key_id).__name__}")
            return Wrapped(key_id, _bytes(data))

        key_id, data = await self._ask("wrap a data key", wrap, "a new data key")
        if KEY_ID.fullmatch(key_id) is None or not 0 < len(data) <= WRAPPED_LIMIT:
            problem = f"it answered with key {key_id[:80]!r} and {len(data)} bytes"
            raise KeyServiceUnavailable("wrap a data key", problem)
        return DataKey(key_id, data, key)

    async def _unwrap(self, key_id: str, wrapped: bytes, subject: str) -> DataKey:
        async def unwrap() -> bytes:
            return _bytes(await self._provider.unwrap(key_id, wrapped))

        key = await self._ask("unwrap a data key", unwrap, subject)
        if len(key) != KEY_BYTES:
            raise KeyServiceUnavailable("unwrap a data key", f"it answered with {len(key)} bytes")
        return DataKey(key_id, wrapped, key)

    async def _ask(self, action: str, ask: Callable[[], Awaitable[T]], subject: str) -> T:
        """Return the provider's answer, with its errors as ours: it may be anyone's code."""
        failed = self._failed
        if failed is not None and self._clock() - self._failed_at < _CALM_SECONDS:
            raise KeyServiceUnavailable(failed.action, failed.problem)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answered = await ask()
        except DecryptionKeyMissing as error:
            raise DecryptionKeyMissing(subject, error.key_id, error.held) from None
        except PayloadAltered as error:
            raise PayloadAltered(subject, error.problem) from None
        except Exception as error:
            problem = error.problem if isinstance(error, KeyServiceUnavailable) else ""
            problem = problem or f"{type(error).__name__}: {error}"
            if isinstance(error, TimeoutError):
                problem = f"no answer in {PATIENCE_SECONDS:g} s"
            self._failed, self._failed_at = KeyServiceUnavailable(action, problem), self._clock()
            raise self._failed from error
        self._failed = None
        return answered


def _bytes(value: Any) -> bytes:
    """Return what a provider answered, if it is bytes.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"it answered with {type(value).__name__} instead of bytes")
    return bytes(value)
