"""The operator's way into NATS: as a user it signs itself, tried until the server accepts it."""

import asyncio
import logging
from datetime import timedelta
from typing import Final

from galley.broker.account_directory import AccountDirectory
from galley.broker.connection import Broker
from galley.broker.errors import (
    AccessRefused,
    BrokerRefused,
    BrokerUnreachable,
    CredentialsExpired,
    TlsFailed,
)
from galley.errors import TlsInvalid
from galley.tls import Tls
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError
from galley_operator.credentials.account import Account
from galley_operator.credentials.backup_secret import BackupSecret, GatewaySecret
from galley_operator.credentials.certificate import Times
from galley_operator.credentials.certificate_keeper import CertificateKeeper
from galley_operator.credentials.client_tls import ClientTls, read_files
from galley_operator.credentials.key_secret import Keys, keys_in
from galley_operator.credentials.queue_secrets import QueueSecrets
from galley_operator.credentials.registrar import Registrar
from galley_operator.credentials.server_secret import ServerCertificate, ServerSecret
from galley_operator.credentials.store_key import ensure_store_key
from galley_operator.errors import CertificateInvalid, KeysInvalid, KeysNotFound, StoreEncrypted
from galley_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 2.0


class BrokerAccess:
    """Opens the connections to NATS, and knows where queues get their credentials from."""

    def __init__(self, cluster: Cluster, settings: OperatorSettings, namespace: str) -> None:
        """Args: namespace: the operator's own, where the Secrets for NATS are."""
        self._cluster, self._settings, self._namespace = cluster, settings, namespace
        self._directory: AccountDirectory | None = None
        self._certificate: ServerCertificate | None = None
        self.keeper: CertificateKeeper | None = None
        """Keeps the certificates of our own NATS; None if it needs none. Known once there is a connection."""
        self.secrets: QueueSecrets | None = None
        """None where NATS requires no credentials; known once there is a connection."""
        self.backup: BackupSecret | None = None
        """None where there are no backups, or NATS requires no credentials."""
        self.gateway: GatewaySecret | None = None
        """None where there is no gateway, or NATS requires no credentials."""
        self._registrar: Registrar | None = None

    async def connect(self) -> Broker:
        """Return an open connection; keys and NATS may come up after us, or be repaired while we wait."""
        while True:
            try:
                server_secret = await self._prepare_servers()
                keys = await self._keys()
                secrets = None if keys is None else await self._secrets(keys)
                broker = await self._broker(keys.account if keys else None).__aenter__()
            except (
                BrokerUnreachable,
                BrokerRefused,
                AccessRefused,
                CredentialsExpired,
                TlsFailed,
                TlsInvalid,
                CertificateInvalid,
                StoreEncrypted,
                KeysInvalid,
                KeysNotFound,
                ClusterError,
            ) as error:
                log.warning("no way into the broker", extra={"error": str(error), "hint": error.hint})
                await self.close()
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self.secrets = secrets
                if server_secret is not None and self._certificate is not None:
                    self.keeper = CertificateKeeper(
                        server_secret,
                        self._certificate,
                        self._directory,
                        self._settings.certificate_look_seconds,
                    )
                self.backup = None if keys is None else self._backup(keys)
                self.gateway = None if keys is None else self._gateway(keys)
                return broker

    async def close(self) -> None:
        """Close the connection to the directory of accounts, if there is one."""
        directory, self._directory = self._directory, None
        if directory is not None:
            await directory.__aexit__(None, None, None)

    def client_tls(self) -> ClientTls | None:
        """Return what workers and producers need to encrypt their connections; None if they do not.

        Raises:
            CertificateInvalid: if a file of ours cannot be read.
        """
        settings = self._settings
        if settings.server_tls:
            return ClientTls(ca=self._trusted(), server_name=settings.tls_server_name)
        return None if settings.tls is None else read_files(settings.tls)

    def _trusted(self) -> str:
        present = self.keeper.present if self.keeper is not None else self._certificate
        assert present is not None, "it is made before anything is connected"
        return present.trusted

    def _tls(self) -> Tls | None:
        """Return how to encrypt our own connections."""
        settings = self._settings
        if not settings.server_tls:
            return settings.tls
        return Tls(self._trusted, server_name=settings.tls_server_name)

    async def _prepare_servers(self) -> ServerSecret | None:
        """Have what the servers of our own NATS wait for before they start."""
        settings = self._settings
        if settings.store_secret:
            await ensure_store_key(self._cluster, self._namespace, settings.store_secret, settings.store_key)
        if not settings.server_secret:
            return None
        secret = ServerSecret(
            self._cluster,
            self._namespace,
            settings.server_secret,
            settings.hosts,
            source=settings.certificate_secret,
            times=Times(
                certificate=timedelta(seconds=settings.certificate_seconds),
                overlap=timedelta(seconds=settings.overlap_seconds),
            ),
        )
        self._certificate = await secret.ensure()
        return secret

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
            return QueueSecrets(self._cluster, keys.account, tls=self.client_tls)
        directory = AccountDirectory(
            self._settings.server,
            lambda: authority.system.credentials("galley operator", None),
            tls=self._tls(),
        )
        self._directory = await directory.__aenter__()
        registrar = self._registrar = Registrar(authority, directory)
        # First: the accounts of roles import from this one.
        await registrar.ensure_streams()
        return QueueSecrets(self._cluster, keys.account, registrar, tls=self.client_tls)

    def _backup(self, keys: Keys) -> BackupSecret | None:
        if not (name := self._settings.backup_secret):
            return None
        place = self._namespace, name
        return BackupSecret(self._cluster, keys.account, self._registrar, place, tls=self.client_tls)

    def _gateway(self, keys: Keys) -> GatewaySecret | None:
        if not (name := self._settings.gateway_secret):
            return None
        return GatewaySecret(self._cluster, keys.account, None, (self._namespace, name), tls=self.client_tls)

    def _broker(self, account: Account | None) -> Broker:
        name = f"galley operator {self._settings.pod_name}"
        credentials = None if account is None else lambda: account.credentials("galley operator", None)
        return Broker(self._settings.server, name=name, credentials=credentials, tls=self._tls())
