"""The keys of a NATS server of our own: made once, and given to the server as a part of its configuration.

An operator's key signs the accounts, a signing key of the accounts signs the users. The accounts themselves
have names and no private keys. JetStream files streams under the name of their account, so that name never
changes: if the Secret with the keys is lost, new keys open the same streams.
"""

import json
from typing import Final

from galley_operator.credentials.account import ACCOUNT_KEY, SEED_KEY, Account
from galley_operator.credentials.authority import (
    ACCOUNT,
    OPERATOR_SEED_KEY,
    SYSTEM_ACCOUNT,
    SYSTEM_SEED_KEY,
    Authority,
)
from galley_operator.credentials.key_pair import KeyPair, Owner

CONFIG_KEY: Final = "auth.conf"


def made_keys(now: float) -> dict[str, str]:
    """Return new keys as the entries of a Secret.

    `auth.conf` is for the servers and holds nothing secret; the other entries are for what signs.
    """
    operator, system, signer = (
        KeyPair.made(owner) for owner in (Owner.OPERATOR, Owner.ACCOUNT, Owner.ACCOUNT)
    )
    authority = Authority(operator, Account(SYSTEM_ACCOUNT, system), Account(ACCOUNT, signer))
    return {
        CONFIG_KEY: server_config(authority, now),
        ACCOUNT_KEY: ACCOUNT,
        SEED_KEY: signer.seed,
        OPERATOR_SEED_KEY: operator.seed,
        SYSTEM_SEED_KEY: system.seed,
    }


def server_config(authority: Authority, now: float) -> str:
    """Return the part of a server's configuration that says which signatures it accepts.

    The server's configuration includes it, and afterwards names the directory of further accounts: a
    `resolver` that replaces this one. This one serves the chart of an earlier release, after a rollback.
    """
    tokens = {ACCOUNT: authority.streams_token(now), SYSTEM_ACCOUNT: authority.system_token(now)}
    preload = "\n".join(f"  {name}: {json.dumps(token)}" for name, token in tokens.items())
    return (
        f"operator: {json.dumps(authority.operator_token(now))}\n"
        f"system_account: {SYSTEM_ACCOUNT}\n"
        "resolver: MEMORY\n"
        f"resolver_preload: {{\n{preload}\n}}\n"
    )
