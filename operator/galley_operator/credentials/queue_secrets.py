"""The Secrets with the credentials of a queue: who may read one may do what its role may."""

import base64
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from galley.broker.permissions import Role
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.ownership import check_owner
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.account import VALID_SECONDS, Account
from galley_operator.credentials.key_secret import entries_of
from galley_operator.credentials.queue_roles import Holder, credentials_of, due
from galley_operator.credentials.registrar import Registrar
from galley_operator.errors import KeysInvalid

log = logging.getLogger(__name__)

FILE_KEY: Final = "nats.creds"
"""Key of the Secret, and so name of the file where it is mounted."""

MANAGER: Final = "galley-operator"


def secret_name(role: Role, queue: str) -> str:
    """Return what the Secret of a role of a queue is called."""
    return f"galley-{queue}-{role}"


class QueueSecrets:
    """Keeps the Secrets of queues good; asks for each of them, and writes only those it must."""

    def __init__(
        self,
        cluster: Cluster,
        account: Account,
        registrar: Registrar | None = None,
        clock: Callable[[], float] = time.time,
        valid_seconds: float = VALID_SECONDS,
    ) -> None:
        """Describe where credentials come from.

        Args:
            cluster: where the Secrets are.
            account: of the streams; its key signs.
            registrar: registers an account for each role of a queue. None if only the key of one account is
                known: then roles are users of that account, and queues are not isolated.
            clock: seconds since 1970.
            valid_seconds: life of credentials.
        """
        self._cluster, self._account, self._clock = cluster, account, clock
        self._registrar = registrar
        self._valid_seconds = valid_seconds

    async def ensure(self, namespace: str, queue: str, metadata: dict[str, Any]) -> None:
        """Have good credentials for each role of a queue.

        Args:
            namespace: of the queue.
            queue: its name.
            metadata: labels and owners of the queue's objects.

        Raises:
            ClusterError: if a Secret could not be read or written.
            BrokerError: if the accounts could not be sent to the server.
            NameTaken: if a Secret of that name is not the queue's.
        """
        if self._registrar is not None:
            await self._registrar.ensure(namespace, queue)
        for role in Role:
            holder = Holder(role, namespace, queue)
            present = await self._present(holder, metadata)
            if why := due(present, self._signer(holder), holder, self._clock()):
                await self._cluster.apply(SECRETS, self._secret(holder, metadata), manager=MANAGER)
                log.info("credentials renewed", extra={
                    "namespace": namespace, "queue": queue, "role": role, "reason": why})  # fmt: skip

    async def forget(self, namespace: str, queue: str) -> None:
        """Remove the accounts of a queue whose streams were deleted; its Secrets went with it.

        Raises:
            BrokerError: if the server could not be told.
        """
        if self._registrar is not None:
            await self._registrar.remove(namespace, queue)

    def _signer(self, holder: Holder) -> Account:
        return self._account if self._registrar is None else self._registrar.authority.account_of(holder)

    async def _present(self, holder: Holder, metadata: dict[str, Any]) -> str | None:
        name = secret_name(holder.role, holder.queue)
        try:
            found = await self._cluster.get(SECRETS, holder.namespace, name)
            check_owner(SECRETS, found, metadata)
            return entries_of(found).get(FILE_KEY)
        except (ObjectNotFound, KeysInvalid):
            return None

    def _secret(self, holder: Holder, metadata: dict[str, Any]) -> dict[str, Any]:
        text = credentials_of(self._signer(holder), holder, self._clock(), self._valid_seconds)
        return {
            "metadata": {
                **metadata,
                "namespace": holder.namespace,
                "name": secret_name(holder.role, holder.queue),
            },
            "type": "Opaque",
            "data": {FILE_KEY: base64.b64encode(text.encode()).decode()},
        }
