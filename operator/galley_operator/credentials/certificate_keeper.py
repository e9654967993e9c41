"""Keeps the certificates of our own NATS in force, and has its servers load new ones while they run."""

import asyncio
import logging
from typing import Final, Protocol

from galley.broker.errors import BrokerError
from galley_operator.credentials.server_secret import ServerCertificate, ServerSecret
from galley_operator.errors import OperatorError

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0
"""Time between two looks. The kubelet brings a new Secret into a running pod within about 90 seconds."""


class Servers(Protocol):
    """The servers of a NATS: `AccountDirectory`."""

    async def tags(self) -> dict[str, frozenset[str]]:
        """Return the tags of each server, by its id."""

    async def reload(self, server: str) -> None:
        """Have a server read its configuration and certificates again."""


class CertificateKeeper:
    """Renews certificates before they end; asks each server what it has loaded, and tells it to load."""

    def __init__(
        self,
        secret: ServerSecret,
        present: ServerCertificate,
        servers: Servers | None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Args: servers: None if NATS has no system account; then it loads certificates when it starts."""
        self.present = present
        """What is in force for clients."""
        self._secret, self._servers, self._look_seconds = secret, servers, look_seconds

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                await self.look()
            except (OperatorError, BrokerError) as error:
                log.warning("certificates not looked at", extra={"error": str(error), "hint": error.hint})

    async def look(self) -> None:
        """Have the Secret as it should be now, and every server use it.

        Raises:
            OperatorError: if the Secret could not be read or written.
            BrokerError: if servers could not be asked or told.
        """
        before, self.present = self.present, await self._secret.ensure()
        if self._servers is None:
            if before.tag != self.present.tag:
                log.warning(
                    "NATS has to be restarted to load its new certificate",
                    extra={"hint": "kubectl rollout restart statefulset/..., or turn on nats.auth.enabled"},
                )
            return
        for server, tags in (await self._servers.tags()).items():
            if self.present.tag not in tags:
                await self._servers.reload(server)
                log.info("server told to load certificates", extra={"server": server})
