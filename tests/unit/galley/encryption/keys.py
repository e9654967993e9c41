"""Keys for tests, without files."""

import base64
from collections.abc import Callable

from galley.encryption import KeyServiceUnavailable, LocalKeys, Wrapped
from galley.encryption.data_keys import DataKeys
from galley.encryption.payloads import Payloads

ONE = base64.b64encode(bytes(range(32))).decode()
TWO = base64.b64encode(bytes(range(32, 64))).decode()


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entries(primary: str = "k1", **keys: str) -> dict[str, bytes]:
    named = {"primary": primary, **(keys or {"k1": ONE})}
    return {name: value.encode() for name, value in named.items()}


def local(
    read: Callable[[], dict[str, bytes]] = entries, clock: Callable[[], float] | None = None
) -> LocalKeys:
    return LocalKeys("the keys", read, clock or Time())


def payloads(**keys: str) -> Payloads:
    """Return what encrypts for all queues; keys by their ids, of which the first is primary."""
    named = keys or {"k1": ONE}
    found = DataKeys(local(lambda: entries(next(iter(named)), **named)))
    return Payloads(lambda _namespace, _queue: found)


class Service:
    """A key service in this process, which may be down, and counts what it is asked."""

    def __init__(self) -> None:
        self.down: Exception | None = None
        self.asked = 0
        self.short = False
        self._keys = local()

    def version(self) -> str:
        return ""

    async def wrap(self, data_key: bytes) -> Wrapped:
        self._ask()
        return Wrapped("", b"") if self.short else await self._keys.wrap(data_key)

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        self._ask()
        return b"" if self.short else await self._keys.unwrap(key_id, wrapped)

    def _ask(self) -> None:
        self.asked += 1
        if self.down is not None:
            raise self.down


DOWN = KeyServiceUnavailable("answer", "503")
