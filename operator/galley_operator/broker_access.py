"""The operator's way into NATS: as a user it signs for itself, tried until it is let in."""

import asyncio
import logging
from typing import Final

from galley.broker.connection import Broker
from galley.errors import AccessRefused, BrokerUnreachable, CredentialsExpired
from galley_operator.cluster.client import Cluster
from galley_operator.credentials.account import Account
from galley_operator.credentials.key_secret import account_in
from galley_operator.credentials.queue_secrets import QueueSecrets
from galley_operator.errors import ClusterError, KeysInvalid, KeysNotFound
from galley_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 2.0


class BrokerAccess:
    """Opens the connection to NATS, and knows where queues get their credentials from."""

    def __init__(self, cluster: Cluster, settings: OperatorSettings, namespace: str) -> None:
        """Args: namespace: the operator's own, where the Secret with the keys is."""
        self._cluster, self._settings, self._namespace = cluster, settings, namespace
        self.secrets: QueueSecrets | None = None
        """None where NATS asks nobody who he is; known once there is a connection."""

    async def connect(self) -> Broker:
        """Return an open connection; keys and NATS may come up after us, or be mended while we wait."""
        while True:
            try:
                account = await self._account()
                broker = await self._broker(account).__aenter__()
            except (
                BrokerUnreachable,
                AccessRefused,
                CredentialsExpired,
                KeysInvalid,
                KeysNotFound,
                ClusterError,
            ) as error:
                log.warning("no way into the broker", extra={"error": str(error), "hint": error.hint})
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self.secrets = None if account is None else QueueSecrets(self._cluster, account)
                return broker

    async def _account(self) -> Account | None:
        settings = self._settings
        if not settings.auth_secret:
            return None
        return await account_in(self._cluster, self._namespace, settings.auth_secret, make=settings.make_keys)

    def _broker(self, account: Account | None) -> Broker:
        name = f"galley operator {self._settings.pod_name}"
        credentials = None if account is None else lambda: account.credentials("galley operator", None)
        return Broker(self._settings.server, name=name, credentials=credentials)
