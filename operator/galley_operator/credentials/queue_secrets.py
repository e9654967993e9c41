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
from galley_operator.credentials.client_tls import CA, CERTIFICATE, KEY, ClientTls
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
        *,
        tls: Callable[[], ClientTls | None] = lambda: None,
        clock: Callable[[], float] = time.time,
        valid_seconds: float = VALID_SECONDS,
    ) -> None:
        """Describe where credentials come from.

        Args:
            cluster: where the Secrets are.
            account: of the streams; its key signs.
            registrar: registers an account for each role of a queue. None if only the key of one account is
                known: then roles are users of that account, and queues are not isolated.
            tls: returns what clients need to encrypt connections; None if they do not.
            clock: seconds since 1970.
            valid_seconds: life of credentials.
        """
        self._cluster, self._account, self._clock = cluster, account, clock
        self._registrar, self._tls = registrar, tls
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
        tls = self._tls_entries()
        for role in Role:
            holder = Holder(role, namespace, queue)
            present = await self._present(holder, metadata)
            why = due(present.get(FILE_KEY), self._signer(holder), holder, self._clock())
            if not why and any(present.get(key) != tls.get(key) for key in (CA, CERTIFICATE, KEY)):
                why = "the authorities or the certificate of clients changed"
            if why:
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

    def _tls_entries(self) -> dict[str, str]:
        tls = self._tls()
        return {} if tls is None else tls.entries

    def _signer(self, holder: Holder) -> Account:
        return self._account if self._registrar is None else self._registrar.authority.account_of(holder)

    async def _present(self, holder: Holder, metadata: dict[str, Any]) -> dict[str, str]:
        name = secret_name(holder.role, holder.queue)
        try:
            found = await self._cluster.get(SECRETS, holder.namespace, name)
            check_owner(SECRETS, found, metadata)
            return entries_of(found)
        except (ObjectNotFound, KeysInvalid):
            return {}

    def _secret(self, holder: Holder, metadata: dict[str, Any]) -> dict[str, Any]:
        text = credentials_of(self._signer(holder), holder, self._clock(), self._valid_seconds)
        return {
            "metadata": {
                **metadata,
                "namespace": holder.namespace,
                "name": secret_name(holder.role, holder.queue),
            },
            "type": "Opaque",
            "data": {
                key: base64.b64encode(value.encode()).decode()
                for key, value in {FILE_KEY: text, **self._tls_entries()}.items()
            },
        }
