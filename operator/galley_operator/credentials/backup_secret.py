"""The Secrets with the credentials of `galley backup` and of the gateway."""

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from galley.broker.permissions import backup_permissions, gateway_permissions
from galley.errors import GalleyError
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.ownership import check_owner
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.account import VALID_SECONDS, Account
from galley_operator.credentials.client_tls import ClientTls
from galley_operator.credentials.key_secret import entries_of
from galley_operator.credentials.queue_roles import due_for
from galley_operator.credentials.queue_secrets import FILE_KEY, MANAGER
from galley_operator.credentials.registrar import Registrar

log = logging.getLogger(__name__)

_LABELS: Final = {"app.kubernetes.io/managed-by": "galley", "app.kubernetes.io/part-of": "galley"}
_LOOK_SECONDS: Final = 3600.0
_AGAIN_SECONDS: Final = 10.0


class BackupSecret:
    """Keeps the credentials of backups good for as long as `run` runs. They read all streams."""

    component = "backup"
    permissions = staticmethod(backup_permissions)

    def __init__(
        self,
        cluster: Cluster,
        account: Account,
        registrar: Registrar | None,
        place: tuple[str, str],
        *,
        tls: Callable[[], ClientTls | None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Describe where the credentials come from and go to.

        Args:
            cluster: where the Secret is.
            account: of the streams.
            registrar: registers the account of backups; None if only the key of one account is known: then
                the credentials are for a user of that account.
            place: namespace and name of the Secret.
            tls: returns what clients need to encrypt connections; None if they do not.
            clock: seconds since 1970.
        """
        self._cluster, self._account, self._registrar = cluster, account, registrar
        self._place, self._tls, self._clock = place, tls, clock

    @property
    def _labels(self) -> dict[str, str]:
        return {**_LABELS, "app.kubernetes.io/component": self.component}

    async def run(self) -> None:
        """Look again and again until cancelled; errors are logged."""
        while True:
            try:
                await self.ensure()
                pause = _LOOK_SECONDS
            except GalleyError as error:
                about = {"component": self.component, "error": str(error), "hint": error.hint}
                log.warning("credentials not renewed", extra=about)
                pause = _AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def ensure(self) -> None:
        """Have good credentials.

        Raises:
            ClusterError: if the Secret could not be read or written.
            BrokerError: if the account could not be sent to the server.
            NameTaken: if a Secret of that name is not Galley's.
        """
        account = self._account
        if self._registrar is not None:
            await self._registrar.ensure_backup()
            account = self._registrar.authority.backup_account()
        present, tls = await self._present(), self._tls()
        entries = {} if tls is None else tls.entries
        why = due_for(present.get(FILE_KEY), account, self.permissions(), self._clock())
        if not why and {key: text for key, text in present.items() if key != FILE_KEY} != entries:
            why = "the authorities or the certificate of clients changed"
        if why:
            await self._cluster.apply(SECRETS, self._secret(account, entries), manager=MANAGER)
            log.info("credentials renewed", extra={"component": self.component, "reason": why})

    async def _present(self) -> dict[str, str]:
        namespace, name = self._place
        try:
            found = await self._cluster.get(SECRETS, namespace, name)
        except ObjectNotFound:
            return {}
        check_owner(SECRETS, found, {"labels": self._labels})
        return entries_of(found)

    def _secret(self, account: Account, entries: dict[str, str]) -> dict[str, Any]:
        namespace, name = self._place
        text = account.credentials(
            f"galley {self.component}", self.permissions(), now=self._clock(), valid_seconds=VALID_SECONDS
        )
        return {
            "metadata": {"namespace": namespace, "name": name, "labels": self._labels},
            "type": "Opaque",
            "data": {
                key: base64.b64encode(value.encode()).decode()
                for key, value in {FILE_KEY: text, **entries}.items()
            },
        }


class GatewaySecret(BackupSecret):
    """The same for the gateway, which is a user of the account of the streams."""

    component = "gateway"
    permissions = staticmethod(gateway_permissions)
