"""The operator's way into NATS: as a user it signs itself, tried until the server accepts it."""

import asyncio
import logging
from typing import Final

from galley.broker.account_directory import AccountDirectory
from galley.broker.connection import Broker
from galley.broker.errors import AccessRefused, BrokerRefused, BrokerUnreachable, CredentialsExpired
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError
from galley_operator.credentials.account import Account
from galley_operator.credentials.key_secret import Keys, keys_in
from galley_operator.credentials.queue_secrets import QueueSecrets
from galley_operator.credentials.registrar import Registrar
from galley_operator.errors import KeysInvalid, KeysNotFound
from galley_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 2.0


class BrokerAccess:
    """Opens the connections to NATS, and knows where queues get their credentials from."""

    def __init__(self, cluster: Cluster, settings: OperatorSettings, namespace: str) -> None:
        """Args: namespace: the operator's own, where the Secret with the keys is."""
        self._cluster, self._settings, self._namespace = cluster, settings, namespace
        self._directory: AccountDirectory | None = None
        self.secrets: QueueSecrets | None = None
        """None where NATS requires no credentials; known once there is a connection."""

    async def connect(self) -> Broker:
        """Return an open connection; keys and NATS may come up after us, or be repaired while we wait."""
        while True:
            try:
                keys = await self._keys()
                secrets = None if keys is None else await self._secrets(keys)
                broker = await self._broker(keys.account if keys else None).__aenter__()
            except (
                BrokerUnreachable,
                BrokerRefused,
                AccessRefused,
                CredentialsExpired,
                KeysInvalid,
                KeysNotFound,
                ClusterError,
            ) as error:
                log.warning("no way into the broker", extra={"error": str(error), "hint": error.hint})
                await self.close()
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self.secrets = secrets
                return broker

    async def close(self) -> None:
        """Close the connection to the directory of accounts, if there is one."""
        directory, self._directory = self._directory, None
        if directory is not None:
            await directory.__aexit__(None, None, None)

    async def _keys(self) -> Keys | None:
        settings = self._settings
        if not settings.auth_secret:
            return None
        return await keys_in(self._cluster, self._namespace, settings.auth_secret, make=settings.make_keys)

    async def _secrets(self, keys: Keys) -> QueueSecrets:
        authority = keys.authority
        if authority is None:
            missing = f"Secret {self._settings.auth_secret} has no operator.seed and system.seed"
            log.warning("queues are not isolated from each other", extra={"reason": missing})
            return QueueSecrets(self._cluster, keys.account)
        directory = AccountDirectory(
            self._settings.server, lambda: authority.system.credentials("galley operator", None)
        )
        self._directory = await directory.__aenter__()
        registrar = Registrar(authority, directory)
        # First: the accounts of roles import from this one.
        await registrar.ensure_streams()
        return QueueSecrets(self._cluster, keys.account, registrar)

    def _broker(self, account: Account | None) -> Broker:
        name = f"galley operator {self._settings.pod_name}"
        credentials = None if account is None else lambda: account.credentials("galley operator", None)
        return Broker(self._settings.server, name=name, credentials=credentials)
