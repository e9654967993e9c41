"""Keeps the accounts the server knows equal to what the roles of queues may do."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from galley.broker.permissions import Role
from galley_operator.credentials.authority import Authority
from galley_operator.credentials.queue_roles import Holder
from galley_operator.credentials.signed_token import verified

log = logging.getLogger(__name__)

_TRUST_SECONDS: Final = 300.0
"""How long an account that was found right is taken to be so; a server that lost its disk has none."""


class Directory(Protocol):
    """Where accounts are kept: `AccountDirectory`."""

    async def read(self, account: str) -> str:
        """Return a signed token; empty if there is none."""

    async def store(self, token: str) -> None:
        """Put a token into force."""

    async def remove(self, token: str) -> None:
        """Remove the accounts a token names."""


class Registrar:
    """Registers accounts; asks for each of them, and stores only those that differ."""

    def __init__(
        self,
        authority: Authority,
        directory: Directory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args: clock: seconds since 1970."""
        self.authority = authority
        self._directory, self._clock = directory, clock
        self._right_until: dict[str, float] = {}

    async def ensure_streams(self) -> None:
        """Have the account of the streams export what roles use.

        Raises:
            BrokerError: if the server does not answer or refuses.
        """
        authority = self.authority
        await self._ensure(authority.streams.public, authority.streams_rights(), authority.streams_token)

    async def ensure_backup(self) -> None:
        """Have the account of backups.

        Raises:
            BrokerError: if the server does not answer or refuses.
        """
        authority = self.authority
        account = authority.backup_account().public
        await self._ensure(account, authority.backup_rights(), authority.backup_token)

    async def ensure(self, namespace: str, queue: str) -> None:
        """Have an account for each role of a queue.

        Raises:
            BrokerError: if the server does not answer or refuses.
        """
        for role in Role:
            holder = Holder(role, namespace, queue)
            rights = self.authority.queue_rights(holder)
            account = self.authority.account_of(holder).public
            await self._ensure(account, rights, partial(self.authority.queue_token, holder))

    async def remove(self, namespace: str, queue: str) -> None:
        """Remove the accounts of a queue that is gone, which ends the connections made with them.

        Raises:
            BrokerError: if the server does not answer or refuses.
        """
        holders = [Holder(role, namespace, queue) for role in Role]
        await self._directory.remove(self.authority.removal(holders, self._clock()))
        for holder in holders:
            self._right_until.pop(self.authority.account_of(holder).public, None)

    async def _ensure(self, account: str, rights: dict[str, Any], token: Callable[[float], str]) -> None:
        now = self._clock()
        if now < self._right_until.get(account, 0.0):
            return
        claims = verified(await self._directory.read(account), self.authority.operator)
        if claims is None or claims.get("nats") != rights:
            # The server keeps the newer of two tokens, and compares whole seconds.
            issued = max(now, claims.get("iat", 0) + 1) if claims else now
            await self._directory.store(token(issued))
            log.info("account registered", extra={"account": account, "new": claims is None})
        self._right_until[account] = now + _TRUST_SECONDS
