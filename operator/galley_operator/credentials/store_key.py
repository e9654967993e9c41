"""The Secret with the keys that encrypt the streams on the disks of our own NATS.

Keys are numbered. The servers mount the part of one number, `store-NUMBER.conf`, which the kubelet waits for;
so a key is replaced by raising the number, whatever is applied first. Each part also names the key used
before it, with which a server reads what it has and encrypts it again when it starts.
"""

import base64
import logging
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectConflict, ObjectNotFound
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.key_secret import entries_of
from galley_operator.errors import StoreEncrypted

log = logging.getLogger(__name__)

_KEY: Final = re.compile(r"key-([1-9][0-9]*)")
_LABELS: Final = {"app.kubernetes.io/managed-by": "galley", "app.kubernetes.io/part-of": "galley"}


async def ensure_store_key(cluster: Cluster, namespace: str, name: str, number: int) -> None:
    """Have a key of that number.

    Args:
        cluster: where the Secret is.
        namespace: of the Secret.
        name: of the Secret.
        number: 0 if streams are not encrypted.

    Raises:
        StoreEncrypted: if they are not to be, but were.
        ClusterError: if the Secret could not be read or written.
    """
    try:
        found = await cluster.get(SECRETS, namespace, name)
    except ObjectNotFound:
        if number:
            await _make(cluster, namespace, name, number)
        return
    if not number:
        raise StoreEncrypted(namespace, name)
    present = entries_of(found)
    wanted = with_key(present, number)
    if wanted == present:
        return
    metadata = {"resourceVersion": found["metadata"]["resourceVersion"]}
    await cluster.merge_patch(SECRETS, namespace, name, {"metadata": metadata, "data": _encoded(wanted)})
    log.info("key for the streams of NATS made", extra={"secret": f"{namespace}/{name}", "number": number})


def with_key(entries: Mapping[str, str], number: int) -> dict[str, str]:
    """Return the entries of the Secret with a key of that number, and with what servers mount of each."""
    keys = {int(match[1]): text for key, text in entries.items() if (match := _KEY.fullmatch(key))}
    keys.setdefault(number, secrets.token_hex(32))
    return {key: text for each in keys for key, text in _parts(each, keys).items()}


def _parts(number: int, keys: Mapping[int, str]) -> dict[str, str]:
    # Of an older number it is the newest, so that a step back reads what was written since.
    before = max((other for other in keys if other != number), default=None)
    lines = [f'key: "{keys[number]}"']
    if before is not None:
        lines.append(f'prev_encryption_key: "{keys[before]}"')
    return {f"key-{number}": keys[number], f"store-{number}.conf": "\n".join(lines) + "\n"}


async def _make(cluster: Cluster, namespace: str, name: str, number: int) -> None:
    metadata: dict[str, Any] = {"namespace": namespace, "name": name, "labels": _LABELS}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}
    try:
        await cluster.create(SECRETS, {**body, "data": _encoded(with_key({}, number))})
    except ObjectConflict:
        return  # another replica made it
    log.info("key for the streams of NATS made", extra={"secret": f"{namespace}/{name}", "number": number})


def _encoded(entries: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(text.encode()).decode() for key, text in entries.items()}
