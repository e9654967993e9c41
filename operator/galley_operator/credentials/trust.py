"""The keys of a NATS of our own: made once, and told to its servers as a piece of configuration.

An operator's key signs the accounts, a signing key of the account signs the users. The account's own private
key is thrown away: it is only a name then, and the signing key can be replaced.
"""

import json
from typing import Any, Final

from galley_operator.credentials.account import ACCOUNT_KEY, SEED_KEY
from galley_operator.credentials.key_pair import KeyPair, Owner
from galley_operator.credentials.signed_token import sign

CONFIG_KEY: Final = "auth.conf"
OPERATOR_SEED_KEY: Final = "operator.seed"
SYSTEM_SEED_KEY: Final = "system.seed"

_NAME: Final = "galley"
_SYSTEM_NAME: Final = "galley-system"


def made_keys(now: float) -> dict[str, str]:
    """Return new keys as the entries of a Secret.

    `auth.conf` is for the servers and holds nothing secret; the others are for whoever signs.
    """
    operator, account, signer = (
        KeyPair.made(Owner.OPERATOR),
        KeyPair.made(Owner.ACCOUNT),
        KeyPair.made(Owner.ACCOUNT),
    )
    system = KeyPair.made(Owner.ACCOUNT)
    tokens = {
        account.public: _account_token(operator, account.public, _NAME, now, signers=[signer.public]),
        system.public: _account_token(operator, system.public, _SYSTEM_NAME, now, system=True),
    }
    return {
        CONFIG_KEY: server_config(_operator_token(operator, system.public, now), system.public, tokens),
        ACCOUNT_KEY: account.public,
        SEED_KEY: signer.seed,
        OPERATOR_SEED_KEY: operator.seed,
        SYSTEM_SEED_KEY: system.seed,
    }


def server_config(operator_token: str, system_account: str, account_tokens: dict[str, str]) -> str:
    """Return the part of a server's configuration that says whom to believe, to be included there."""
    preload = "\n".join(f"  {name}: {json.dumps(token)}" for name, token in account_tokens.items())
    return (
        f"operator: {json.dumps(operator_token)}\n"
        f"system_account: {system_account}\n"
        "resolver: MEMORY\n"
        f"resolver_preload: {{\n{preload}\n}}\n"
    )


def _operator_token(operator: KeyPair, system_account: str, now: float) -> str:
    rights = {"type": "operator", "version": 2, "system_account": system_account}
    return sign({"name": _NAME, "sub": operator.public, "iat": int(now), "nats": rights}, operator)


def _account_token(  # noqa: PLR0917 - what the token says
    operator: KeyPair,
    public: str,
    name: str,
    now: float,
    signers: list[str] | None = None,
    system: bool = False,
) -> str:
    limits: dict[str, Any] = dict.fromkeys(
        ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1
    )
    limits["wildcards"] = True
    if not system:  # JetStream must be off for the account in which the servers speak among themselves
        limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    rights = {"limits": limits, "signing_keys": signers or [], "type": "account", "version": 2}
    return sign({"name": name, "sub": public, "iat": int(now), "nats": rights}, operator)
