"""The credentials of a queue: one for each role, and when it is time for new ones."""

from typing import Final, NamedTuple

from galley.broker.creds_file import parse_creds
from galley.broker.permissions import Permissions, Role, permissions_of
from galley.errors import CredentialsInvalid
from galley_operator.credentials.account import VALID_SECONDS, Account
from galley_operator.credentials.key_pair import KeyPair, Owner
from galley_operator.credentials.signed_token import verified
from galley_operator.errors import KeysInvalid

RENEW_AFTER: Final = 1 / 3
"""Share of their life after which credentials are renewed: clients look for newer ones after a half."""

_SKEW_SECONDS: Final = 300
"""What two replicas' clocks may differ by before one doubts what the other has signed."""


class Holder(NamedTuple):
    """Who credentials are for."""

    role: Role
    namespace: str
    queue: str


def credentials_of(account: Account, holder: Holder, now: float, valid_seconds: float = VALID_SECONDS) -> str:
    """Return new credentials, as the text of a file."""
    return account.credentials(
        f"{holder.role} of {holder.namespace}/{holder.queue}",
        permissions_of(*holder),
        now=now,
        valid_seconds=valid_seconds,
    )


def due(present: str | None, account: Account, holder: Holder, now: float) -> str:
    """Return why a holder needs new credentials, or nothing if the present ones will do."""
    return due_for(present, account, permissions_of(*holder), now)


def due_for(present: str | None, account: Account, permissions: Permissions, now: float) -> str:
    """Return why new credentials are needed, or nothing if the present ones will do.

    Args:
        present: text of the file as it is; None if there is none.
        account: whose they have to be.
        permissions: which they have to have.
        now: seconds since 1970.
    """
    if present is None:
        return "there are none"
    try:
        found = parse_creds(present, "the Secret")
    except CredentialsInvalid as error:
        return error.problem
    claims = verified(found.token, account.signer)
    if claims is None or _public_key_of(found.seed) != claims.get("sub"):
        return "token and keys do not belong together"
    if claims.get("nats") != account.rights(permissions):
        return "they are for other rights"
    begin, end = found.claims.iat, found.claims.exp
    if begin > now + _SKEW_SECONDS or now >= begin + (end - begin) * RENEW_AFTER:
        return "a third of their time is over"
    return ""


def _public_key_of(seed: str) -> str:
    try:
        return KeyPair(seed, Owner.USER).public
    except KeysInvalid:
        return ""
