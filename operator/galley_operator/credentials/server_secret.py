"""The Secret with what the servers of our own NATS need: certificates, and the password of their routes.

It is made before there is a NATS, whose pods mount it and are not started by the kubelet before it is there.
The servers are shown their certificate and key, never the key of the authority. A digest of what they are
shown is a tag of each server, so that it can be asked which state of the Secret it has loaded.
"""

import base64
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectConflict, ObjectNotFound
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.certificate import (
    Chain,
    Pair,
    Times,
    authorities_in,
    checked,
    expiry,
    replaced,
    usable,
    utc,
)
from galley_operator.credentials.key_secret import entries_of
from galley_operator.errors import CertificateInvalid

log = logging.getLogger(__name__)

CA: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
_SIGNER: Final = ("authority.crt", "authority.key")
_SUCCESSOR: Final = ("next-authority.crt", "next-authority.key")
ROUTE_PASSWORD: Final = "route.password"  # noqa: S105 - the name of an entry
TAG: Final = "tag.conf"

NEW_AUTHORITY: Final = "galley.dev/new-authority"
"""Annotation of the Secret: replace the authority. We remove it when that has begun."""

_LABELS: Final = {"app.kubernetes.io/managed-by": "galley", "app.kubernetes.io/part-of": "galley"}
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What is in force: what servers show, and whom clients should trust."""

    trusted: str
    """Certificates of authorities in PEM."""
    tag: str
    """The tag of a server that has loaded this state."""
    expires: float
    """When the certificate ends, in seconds since 1970."""


class ServerSecret:
    """Keeps the Secret as it should be. Each replica of the operator may: it is changed by version."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        hosts: Sequence[str],
        *,
        source: str = "",
        times: Times | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Describe it.

        Args:
            cluster: where it is.
            namespace: of the Secret.
            name: of the Secret.
            hosts: names and addresses the certificate is for.
            source: Secret in the same namespace with a certificate that is made by others; empty to make our
                own.
            times: how long what we make is good for.
            clock: seconds since 1970.
        """
        self._cluster, self._namespace, self._name, self._hosts = cluster, namespace, name, hosts
        self._source, self._times, self._clock = source, times or Times(), clock

    async def ensure(self) -> ServerCertificate:
        """Have it as it should be now.

        Raises:
            CertificateInvalid: if the certificate that others make cannot be used, and there was none before.
            ObjectConflict: if others change it all the time.
            ClusterError: if it could not be read or written.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(ObjectConflict):
                return await self._ensure()
        return await self._ensure()

    async def _ensure(self) -> ServerCertificate:
        try:
            found = await self._cluster.get(SECRETS, self._namespace, self._name)
        except ObjectNotFound:
            found = {}
        present = entries_of(found) if found else {}
        annotations = found.get("metadata", {}).get("annotations") or {}
        wanted = await self._wanted(present, new_authority=NEW_AUTHORITY in annotations)
        if wanted != present or NEW_AUTHORITY in annotations:
            await self._write(found, present, wanted)
        return ServerCertificate(
            wanted[CA], tag_in(wanted), expiry(Pair(wanted[CERTIFICATE], "")).timestamp()
        )

    async def _wanted(self, present: Mapping[str, str], *, new_authority: bool) -> dict[str, str]:
        if self._source:
            shown = await self._copied(present)
        else:
            now = utc(self._clock())
            chain = replaced(_chain_in(present), self._hosts, now, self._times, new_authority=new_authority)
            shown = _entries(chain)
        shown[ROUTE_PASSWORD] = present.get(ROUTE_PASSWORD) or f"r{secrets.token_hex(24)}"
        shown[TAG] = f'server_tags: ["{_tag(shown)}"]\n'
        return shown

    async def _copied(self, present: Mapping[str, str]) -> dict[str, str]:
        """Return the certificate that others make, or the last good one if theirs is not."""
        about = f"Secret {self._namespace}/{self._source}"
        try:
            try:
                theirs = entries_of(await self._cluster.get(SECRETS, self._namespace, self._source))
            except ObjectNotFound:
                raise CertificateInvalid(about, "there is no such Secret") from None
            pair = Pair(theirs.get(CERTIFICATE, ""), theirs.get(KEY, ""))
            pair = checked(pair, utc(self._clock()), about)
            trusted = "".join(authorities_in(theirs.get(CA, ""), about))
        except CertificateInvalid as error:
            if not present.get(CERTIFICATE):
                raise
            log.warning("certificate not taken", extra={"error": str(error), "hint": error.hint})
            return {key: present[key] for key in (CA, CERTIFICATE, KEY)}
        return {CA: trusted, CERTIFICATE: pair.certificate, KEY: pair.key}

    async def _write(
        self, found: dict[str, Any], present: Mapping[str, str], wanted: Mapping[str, str]
    ) -> None:
        data: dict[str, str | None] = {key: _encoded(text) for key, text in wanted.items()}
        metadata: dict[str, Any] = {"namespace": self._namespace, "name": self._name, "labels": _LABELS}
        if not found:
            await self._cluster.create(
                SECRETS,
                {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data},
            )
        else:
            data |= dict.fromkeys(present.keys() - wanted.keys())
            metadata = {
                "resourceVersion": found["metadata"]["resourceVersion"],
                "annotations": {NEW_AUTHORITY: None},
            }
            await self._cluster.merge_patch(
                SECRETS, self._namespace, self._name, {"metadata": metadata, "data": data}
            )
        changed = sorted(key for key in wanted if present.get(key) != wanted[key])
        log.info("certificates of NATS changed", extra={"secret": self._name, "entries": changed})


def tag_in(entries: Mapping[str, str]) -> str:
    """Return the tag of a server that has loaded these entries."""
    return entries[TAG].split('"')[1]


def _tag(entries: Mapping[str, str]) -> str:
    shown = "\n".join(entries[key] for key in (CA, CERTIFICATE, KEY))
    return f"tls:{hashlib.sha256(shown.encode()).hexdigest()[:16]}"


def _chain_in(entries: Mapping[str, str]) -> Chain | None:
    """Return what we made before; None if there is nothing, or nothing that can be read."""
    signer, server = _pair_in(entries, _SIGNER), _pair_in(entries, (CERTIFICATE, KEY))
    if signer is None or server is None:
        return None
    try:
        trusted = authorities_in(entries.get(CA, ""), CA)
    except CertificateInvalid:
        return None
    return Chain(trusted, signer, _pair_in(entries, _SUCCESSOR), server)


def _pair_in(entries: Mapping[str, str], keys: tuple[str, str]) -> Pair | None:
    certificate, key = (entries.get(each, "") for each in keys)
    pair = Pair(certificate, key)
    return pair if usable(pair) else None


def _entries(chain: Chain) -> dict[str, str]:
    entries = {CA: "".join(chain.trusted)}
    pairs = ((_SIGNER, chain.signer), (_SUCCESSOR, chain.successor), ((CERTIFICATE, KEY), chain.server))
    for keys, pair in pairs:
        if pair is not None:
            entries |= zip(keys, pair, strict=True)
    return entries


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
