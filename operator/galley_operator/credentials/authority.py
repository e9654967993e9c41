"""What signs accounts: the keys of an operator in the sense of NATS, and the claims they put into force.

Each role of each queue has an account, so that an answer the server sends on a client's behalf can reach only
what that role may reach: docs/adr/0017-an-account-for-each-role.md.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import nkeys  # type: ignore[import-untyped]

from galley.broker.accounts import EXPORTS, Export, Import, backup_imports, exports_of, imports_of
from galley.broker.permissions import Role
from galley_operator.credentials.account import ACCOUNT_KEY, SEED_KEY, Account
from galley_operator.credentials.key_pair import KeyPair, Owner
from galley_operator.credentials.queue_roles import Holder
from galley_operator.credentials.signed_token import sign

OPERATOR_SEED_KEY: Final = "operator.seed"
SYSTEM_SEED_KEY: Final = "system.seed"

_UNLIMITED: Final = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
_CONNECTIONS: Final = {Role.WORKER: 1_200, Role.PRODUCER: 200, Role.MANAGER: 20}
"""Most connections of a role of a queue at a time: one queue must not use up those of the server, 65,536. A
queue has 1,000 workers at most, and more of them during a rolling update."""

_PAYLOAD: Final = {Role.WORKER: -1, Role.PRODUCER: 896 * 1024, Role.MANAGER: 896 * 1024}
"""Most bytes of a message of a role: an input has 512 KiB at most, and a third more if it is encrypted. So
the worker that runs the task can store its dead letter, which is larger."""

_BACKUP_CONNECTIONS: Final = 20

_SUBSCRIPTIONS: Final = 20_000
"""Most subscriptions of a role of a queue; a waiting producer has a few, a worker about five."""


def public_key_named(name: str) -> str:
    """Return a string in the form of an account's public key, to which no private key is known.

    The same name always gives the same key. An account needs no private key: the operator signs its claims,
    and a signing key signs its users.
    """
    key = bytes([Owner.ACCOUNT]) + hashlib.sha256(name.encode()).digest()
    return base64.b32encode(key + nkeys.crc16_checksum(key)).decode().rstrip("=")


ACCOUNT: Final = public_key_named("galley.dev/account")
"""The account of the streams. JetStream files streams under this name, so it must never change."""

SYSTEM_ACCOUNT: Final = public_key_named("galley.dev/system-account")


@dataclass(frozen=True, slots=True)
class Authority:
    """The operator's key, and the keys that sign users of the accounts it signs."""

    operator: KeyPair = field(repr=False)
    system: Account = field(repr=False)
    streams: Account = field(repr=False)

    @classmethod
    def read(cls, entries: Mapping[str, str], source: str) -> "Authority | None":
        """Return the authority whose keys are in a Secret, or None if it only has the key of an account.

        Raises:
            KeysInvalid: if an entry is not the key it should be.
        """
        if OPERATOR_SEED_KEY not in entries or SYSTEM_SEED_KEY not in entries:
            return None
        system = KeyPair(entries[SYSTEM_SEED_KEY], Owner.ACCOUNT, f"{SYSTEM_SEED_KEY} of {source}")
        return cls(
            KeyPair(entries[OPERATOR_SEED_KEY], Owner.OPERATOR, f"{OPERATOR_SEED_KEY} of {source}"),
            Account(SYSTEM_ACCOUNT, system),
            Account.read({key: entries[key] for key in (ACCOUNT_KEY, SEED_KEY) if key in entries}, source),
        )

    def account_of(self, holder: Holder) -> Account:
        """Return the account of a role of a queue; the key of the streams' account signs its users, too."""
        name = f"galley.dev/{holder.namespace}/{holder.queue}/{holder.role}"
        return Account(public_key_named(name), self.streams.signer)

    def backup_account(self) -> Account:
        """Return the account of backups, which reads all streams."""
        return Account(public_key_named("galley.dev/backup"), self.streams.signer)

    def operator_token(self, now: float) -> str:
        """Return the operator's own claims, which servers are configured with."""
        rights = {"type": "operator", "version": 2, "system_account": SYSTEM_ACCOUNT}
        public = self.operator.public
        return sign({"name": "galley", "sub": public, "iat": int(now), "nats": rights}, self.operator)

    def system_token(self, now: float) -> str:
        """Return the claims of the system account, in which servers speak among themselves."""
        rights = _account_rights(self.system.signer, {})
        return self._token("galley-system", SYSTEM_ACCOUNT, rights, now)

    def streams_token(self, now: float) -> str:
        """Return the claims of the account that has JetStream and exports what roles may use."""
        return self._token("galley", self.streams.public, self.streams_rights(), now)

    def streams_rights(self) -> dict[str, Any]:
        """Return the part of those claims that matters to the server."""
        limits = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        rights = _account_rights(self.streams.signer, limits)
        rights["exports"] = [_exported(export) for export in EXPORTS]
        return rights

    def queue_token(self, holder: Holder, now: float) -> str:
        """Return the claims of the account of a role of a queue."""
        name = f"{holder.role} of {holder.namespace}/{holder.queue}"
        return self._token(name, self.account_of(holder).public, self.queue_rights(holder), now)

    def queue_rights(self, holder: Holder) -> dict[str, Any]:
        """Return the part of those claims that matters to the server."""
        limits = {
            "conn": _CONNECTIONS[holder.role],
            "subs": _SUBSCRIPTIONS,
            "payload": _PAYLOAD[holder.role],
            "leaf": 0,
        }
        rights = _account_rights(self.streams.signer, limits)
        rights["exports"] = [_exported(export) for export in exports_of(*holder)]
        rights["imports"] = [
            _imported(each, self._account_named(holder, each.origin)) for each in imports_of(*holder)
        ]
        return rights

    def backup_token(self, now: float) -> str:
        """Return the claims of the account of backups."""
        return self._token("backup", self.backup_account().public, self.backup_rights(), now)

    def backup_rights(self) -> dict[str, Any]:
        """Return the part of those claims that matters to the server."""
        limits = {"conn": _BACKUP_CONNECTIONS, "subs": _SUBSCRIPTIONS, "leaf": 0}
        rights = _account_rights(self.streams.signer, limits)
        rights["imports"] = [_imported(each, self.streams) for each in backup_imports()]
        return rights

    def _account_named(self, holder: Holder, origin: Role | None) -> Account:
        return self.streams if origin is None else self.account_of(holder._replace(role=origin))

    def removal(self, holders: list[Holder], now: float) -> str:
        """Return the request that removes the accounts of roles of queues."""
        accounts = [self.account_of(holder).public for holder in holders]
        claims = {"sub": self.operator.public, "iat": int(now)}
        return sign(
            {**claims, "nats": {"accounts": accounts, "type": "generic", "version": 2}}, self.operator
        )

    def _token(self, name: str, public: str, rights: dict[str, Any], now: float) -> str:
        return sign({"name": name, "sub": public, "iat": int(now), "nats": rights}, self.operator)


def _account_rights(signer: KeyPair, limits: dict[str, int]) -> dict[str, Any]:
    unlimited: dict[str, Any] = {**dict.fromkeys(_UNLIMITED, -1), "wildcards": True}
    return {
        "limits": unlimited | limits,
        "signing_keys": [signer.public],
        "type": "account",
        "version": 2,
    }


def _imported(wanted: Import, account: Account) -> dict[str, Any]:
    return {
        "name": f"{wanted.flow} {wanted.subject}",
        "subject": wanted.subject,
        "account": account.public,
        "type": wanted.flow.value,
    }


def _exported(export: Export) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "name": f"{export.flow} {export.subject}",
        "subject": export.subject,
        "type": export.flow.value,
    }
    if export.silence_seconds:
        claims["response_type"] = "Stream"
        claims["response_threshold"] = export.silence_seconds * 1_000_000_000
    return claims
