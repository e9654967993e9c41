"""Keys of encrypted queues for the tasks the operator submits; it has no other use for them."""

import time
from collections.abc import Callable
from typing import Final

from galley.encryption import KeyProvider, Wrapped
from galley.encryption.data_keys import DataKeys
from galley.encryption.keys import entries_of, provider_of
from galley.encryption.payloads import Payloads
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.ownership import NO_LABEL, allows_use
from galley_operator.cluster.reflector import Key
from galley_operator.cluster.resource import SECRETS
from galley_operator.errors import ReferenceNotAllowed
from galley_operator.tasks.known_queues import QueueObject

READ_AGAIN_SECONDS: Final = 60.0
"""How long a Secret that was read counts as known: as long as a kubelet takes to update one in a pod."""


class SecretKeys:
    """The keys in a Secret, read when a data key is wrapped or unwrapped."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: cluster: the API server; clock: seconds of a clock that never goes back."""
        self._cluster, self._namespace, self._name, self._clock = cluster, namespace, name, clock
        self._entries: dict[str, bytes] = {}
        self._provider: KeyProvider | None = None
        self._read_at = 0.0
        self._version = 0

    def version(self) -> str:
        """Return a text that changes with the keys."""
        return str(self._version)

    async def wrap(self, data_key: bytes) -> Wrapped:
        """Return a data key, wrapped with the primary key."""
        return await (await self._read()).wrap(data_key)

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Return a data key that was wrapped."""
        return await (await self._read()).unwrap(key_id, wrapped)

    async def _read(self) -> KeyProvider:
        """Return the keys as they are, or were within a minute.

        Raises:
            ClusterError: if the Secret cannot be read.
            ReferenceNotAllowed: if its owner does not allow it to be used.
            EncryptionKeysInvalid: if it has no keys.
        """
        if self._provider is not None and self._clock() - self._read_at < READ_AGAIN_SECONDS:
            return self._provider
        source = f"Secret {self._namespace}/{self._name}"
        secret = await self._cluster.get(SECRETS, self._namespace, self._name)
        # Before anything of it is looked at: what is wrong with its entries is told to who submits.
        if not allows_use(secret):
            raise ReferenceNotAllowed(SECRETS.kind, self._name, self._namespace, NO_LABEL)
        entries = entries_of(source, secret)
        if self._provider is None or entries != self._entries:
            self._provider, self._entries = provider_of(source, lambda: entries), entries
            self._version += 1
        self._read_at = self._clock()
        return self._provider


def payloads_of(cluster: Cluster, found_of: Callable[[Key], QueueObject | None]) -> Payloads:
    """Return what encrypts the tasks of encrypted queues.

    Args:
        cluster: where their Secrets are.
        found_of: returns a TaskQueue as it was last seen, or None.
    """
    known: dict[tuple[str, str], DataKeys] = {}

    def find(namespace: str, queue: str) -> DataKeys | None:
        found = found_of((namespace, queue))
        if found is None or found.queue is None or found.queue.spec.encryption is None:
            return None
        secret = (namespace, found.queue.spec.encryption.secret_name)
        if secret not in known:
            known[secret] = DataKeys(SecretKeys(cluster, *secret))
        return known[secret]

    return Payloads(find)
