"""An account on NATS and its signing key, which grants permissions in that account."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from galley.broker.creds_file import format_creds
from galley.broker.permissions import Permissions
from galley_operator.credentials.key_pair import KeyPair, Owner
from galley_operator.credentials.signed_token import sign
from galley_operator.errors import KeysInvalid

VALID_SECONDS: Final = 7 * 24 * 3600
"""Life of credentials: an operator may be away for days, and one that leaked is worth no more than this."""

ACCOUNT_KEY: Final = "account"
SEED_KEY: Final = "account.seed"


@dataclass(frozen=True, slots=True)
class Account:
    """An account with a key that signs for it: its own, or one of its signing keys."""

    public: str
    """Its name (`A...`), which is its own public key."""
    signer: KeyPair = field(repr=False)

    @classmethod
    def read(cls, entries: Mapping[str, str], source: str) -> "Account":
        """Return the account in a Secret.

        Args:
            entries: its decoded data; `account.seed` signs, `account` is left out if that is its own key.
            source: where they are from, for the message of an error.

        Raises:
            KeysInvalid: if there is no such key in it.
        """
        if SEED_KEY not in entries:
            raise KeysInvalid(source, f"there is no {SEED_KEY!r} in it")
        signer = KeyPair(entries[SEED_KEY], Owner.ACCOUNT, f"{SEED_KEY} of {source}")
        public = entries.get(ACCOUNT_KEY, "").strip() or signer.public
        if not public.startswith("A"):
            raise KeysInvalid(f"{ACCOUNT_KEY} of {source}", "it is not the public key of an account (A...)")
        return cls(public, signer)

    def credentials(
        self,
        name: str,
        permissions: Permissions | None,
        *,
        now: float | None = None,
        valid_seconds: float = VALID_SECONDS,
    ) -> str:
        """Return a new user of the account as the text of a credentials file.

        Args:
            name: what the server calls it in its logs.
            permissions: None is for everything there is in the account.
            now: seconds since 1970 from which they are valid; the present by default.
            valid_seconds: for how long.
        """
        user, begins = KeyPair.made(Owner.USER), time.time() if now is None else now
        claims = {
            "name": name,
            "sub": user.public,
            "iat": int(begins),
            "exp": int(begins + valid_seconds),
            "nats": self.rights(permissions),
        }
        return format_creds(sign(claims, self.signer), user.seed)

    def rights(self, permissions: Permissions | None) -> dict[str, Any]:
        """Return the part of a user's claims that says what it may do."""
        claims: dict[str, Any] = {
            "pub": {},
            "sub": {},
            "subs": -1,
            "data": -1,
            "payload": -1,
            "type": "user",
            "version": 2,
        }
        if permissions is not None:
            claims["pub"] = {"allow": list(permissions.publish)}
            claims["sub"] = {"allow": list(permissions.subscribe)}
        if self.signer.public != self.public:
            claims["issuer_account"] = self.public
        return claims
