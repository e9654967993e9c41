"""The Secret with the keys for NATS: read at the start, and made if it is missing and NATS is our own.

Nothing of the chart makes it, so it does not matter how its objects are applied. NATS mounts the
public part and is not started by the kubelet before it is there. Of several replicas the first one to create
it wins, and the others read what it made.
"""

import base64
import logging
import time
from typing import Any, Final, NamedTuple

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectConflict, ObjectNotFound
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.account import Account
from galley_operator.credentials.authority import Authority
from galley_operator.credentials.trust import made_keys
from galley_operator.errors import KeysInvalid, KeysNotFound

log = logging.getLogger(__name__)

_LABELS: Final = {"app.kubernetes.io/managed-by": "galley", "app.kubernetes.io/part-of": "galley"}


class Keys(NamedTuple):
    """What a Secret with keys is good for."""

    account: Account
    """The account of the streams."""
    authority: Authority | None
    """What signs further accounts; None if the Secret holds the key of one account only."""


async def keys_in(cluster: Cluster, namespace: str, name: str, *, make: bool) -> Keys:
    """Return the keys in a Secret.

    Args:
        cluster: where it is.
        namespace: of the Secret.
        name: of the Secret.
        make: whether to make keys if there are none, because NATS is ours.

    Raises:
        KeysNotFound: if there is no Secret, and it is not ours to make.
        KeysInvalid: if there are no keys in it.
        ClusterError: if it could not be read or made.
    """
    try:
        found = await cluster.get(SECRETS, namespace, name)
    except ObjectNotFound:
        if not make:
            raise KeysNotFound(namespace, name) from None
        found = await _made(cluster, namespace, name)
    entries, source = entries_of(found), f"Secret {namespace}/{name}"
    return Keys(Account.read(entries, source), Authority.read(entries, source))


def key_secret(namespace: str, name: str, now: float) -> dict[str, Any]:
    """Return a Secret with new keys."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": name, "labels": _LABELS},
        "type": "Opaque",
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in made_keys(now).items()},
    }


def entries_of(secret: dict[str, Any]) -> dict[str, str]:
    """Return the data of a Secret as text.

    Raises:
        KeysInvalid: if some of it is none.
    """
    try:
        return {key: base64.b64decode(data).decode() for key, data in (secret.get("data") or {}).items()}
    except ValueError as error:
        raise KeysInvalid(f"Secret {secret['metadata']['name']}", f"it is no text: {error}") from None


async def _made(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    try:
        made = await cluster.create(SECRETS, key_secret(namespace, name, time.time()))
    except ObjectConflict:
        return await cluster.get(SECRETS, namespace, name)
    log.info("keys for NATS made", extra={"secret": f"{namespace}/{name}"})
    return made
