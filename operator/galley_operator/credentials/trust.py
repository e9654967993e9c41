"""The keys of a NATS of our own: made once, and told to its servers as a piece of configuration.

An operator's key signs the accounts, a signing key of the account signs the users. The account itself has a
name and no private key at all. Its name is what JetStream files streams under, so it is always the same: if
the Secret with the keys is lost, new ones open the same streams.
"""

import base64
import hashlib
import json
from typing import Any, Final

import nkeys  # type: ignore[import-untyped]

from galley_operator.credentials.account import ACCOUNT_KEY, SEED_KEY
from galley_operator.credentials.key_pair import KeyPair, Owner
from galley_operator.credentials.signed_token import sign

CONFIG_KEY: Final = "auth.conf"
OPERATOR_SEED_KEY: Final = "operator.seed"
SYSTEM_SEED_KEY: Final = "system.seed"

_NAME: Final = "galley"
_SYSTEM_NAME: Final = "galley-system"


def _public_key_named(name: str) -> str:
    """Return what looks like an account's public key, and to which nobody has the private one."""
    key = bytes([Owner.ACCOUNT]) + hashlib.sha256(name.encode()).digest()
    return base64.b32encode(key + nkeys.crc16_checksum(key)).decode().rstrip("=")


ACCOUNT: Final = _public_key_named("galley.dev/account")
SYSTEM_ACCOUNT: Final = _public_key_named("galley.dev/system-account")


def made_keys(now: float) -> dict[str, str]:
    """Return new keys as the entries of a Secret.

    `auth.conf` is for the servers and holds nothing secret; the others are for whoever signs.
    """
    operator = KeyPair.made(Owner.OPERATOR)
    signer, system_signer = KeyPair.made(Owner.ACCOUNT), KeyPair.made(Owner.ACCOUNT)
    tokens = {
        ACCOUNT: _account_token(operator, ACCOUNT, _NAME, now, signer),
        SYSTEM_ACCOUNT: _account_token(operator, SYSTEM_ACCOUNT, _SYSTEM_NAME, now, system_signer),
    }
    return {
        CONFIG_KEY: server_config(_operator_token(operator, now), tokens),
        ACCOUNT_KEY: ACCOUNT,
        SEED_KEY: signer.seed,
        OPERATOR_SEED_KEY: operator.seed,
        SYSTEM_SEED_KEY: system_signer.seed,
    }


def server_config(operator_token: str, account_tokens: dict[str, str]) -> str:
    """Return the part of a server's configuration that says whom to believe, to be included there."""
    preload = "\n".join(f"  {name}: {json.dumps(token)}" for name, token in account_tokens.items())
    return (
        f"operator: {json.dumps(operator_token)}\n"
        f"system_account: {SYSTEM_ACCOUNT}\n"
        "resolver: MEMORY\n"
        f"resolver_preload: {{\n{preload}\n}}\n"
    )


def _operator_token(operator: KeyPair, now: float) -> str:
    rights = {"type": "operator", "version": 2, "system_account": SYSTEM_ACCOUNT}
    return sign({"name": _NAME, "sub": operator.public, "iat": int(now), "nats": rights}, operator)


def _account_token(operator: KeyPair, public: str, name: str, now: float, signer: KeyPair) -> str:
    unlimited = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    limits: dict[str, Any] = {**dict.fromkeys(unlimited, -1), "wildcards": True}
    if public != SYSTEM_ACCOUNT:  # in which servers speak among themselves, and JetStream must be off
        limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    rights = {"limits": limits, "signing_keys": [signer.public], "type": "account", "version": 2}
    return sign({"name": name, "sub": public, "iat": int(now), "nats": rights}, operator)
