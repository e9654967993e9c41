"""The keys of a queue: from the files of a Secret, or from a service behind `KeyProvider`."""

import base64
import binascii
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from galley.encryption.errors import (
    DecryptionKeyMissing,
    EncryptionError,
    EncryptionKeysInvalid,
    PayloadAltered,
)
from galley.encryption.token import KEY_BYTES, KEY_ID, cipher, decrypt, encrypt

log = logging.getLogger(__name__)

PRIMARY: Final = "primary"
"""Entry that says which key wraps new data keys."""

PROVIDER: Final = "provider"
"""Entry that names a `KeyProvider` in place of keys: an entry point of the group `PLUG_INS`."""

PLUG_INS: Final = "galley.key_providers"
"""Group of the entry points: each is called with the other entries, as texts, and returns a `KeyProvider`."""

LOOK_SECONDS: Final = 5.0
"""How often the files are read again while the keys are in use: how long a new primary key goes unnoticed."""

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How often at most they are read again because a key is missing."""

_WRAPS: Final = b"galley data key "
_TEXT_LIMIT: Final = 64 * 1024


class Wrapped(NamedTuple):
    """A data key as a queue's key wrapped it."""

    key_id: str
    """Of the key that wrapped it: 1 to 63 letters, digits, `_` and `-`."""
    data: bytes
    """At most 4096 bytes."""


class KeyProvider(Protocol):
    """Wraps and unwraps data keys of 32 bytes with keys of a queue.

    A provider raises `DecryptionKeyMissing` for a key it does not have, and `PayloadAltered` for what that
    key did not wrap: then the task fails. Whatever else it raises, or taking more than ten seconds, counts as
    `KeyServiceUnavailable`, and is tried again.
    """

    def version(self) -> str:
        """Return a text that changes when keys are added, removed or become primary, without waiting.

        Cached data keys of before are then dropped. A provider that cannot tell returns the same text always:
        data keys are renewed after five minutes, and cached ones dropped after an hour.
        """

    async def wrap(self, data_key: bytes) -> Wrapped:
        """Return a data key, wrapped with the primary key."""

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Return a data key that was wrapped."""


class _Keys(NamedTuple):
    primary: str
    ciphers: dict[str, Any]
    entries: Mapping[str, bytes]


class LocalKeys:
    """Keys in files, as a mounted Secret has them. They are read again, so that they can be rotated live."""

    def __init__(
        self,
        source: str,
        read: Callable[[], Mapping[str, bytes]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the keys.

        Args:
            source: where they are from, for people.
            read: returns the entries as they are now, or raises `EncryptionKeysInvalid`.
            clock: seconds of a clock that never goes back.

        Raises:
            EncryptionKeysInvalid: if they cannot be used.
        """
        self._source, self._read, self._clock = source, read, clock
        self._looked_at = clock()
        self._keys = _parsed(source, read())
        self._version = 0
        self._problem = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, the primary one first."""
        return tuple(sorted(self._keys.ciphers, key=lambda key_id: (key_id != self._keys.primary, key_id)))

    def version(self) -> str:
        """Return a text that changes with the keys."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._look()
        return str(self._version)

    async def wrap(self, data_key: bytes) -> Wrapped:
        """Return a data key, wrapped with the primary key."""
        key_id = self._keys.primary
        return Wrapped(key_id, encrypt(self._keys.ciphers[key_id], data_key, _WRAPS + key_id.encode()))

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Return a data key that was wrapped.

        Raises:
            DecryptionKeyMissing: if there is no such key, not even in the files as they are now.
            PayloadAltered: if that key did not wrap it.
        """
        if key_id not in self._keys.ciphers and self._clock() - self._looked_at >= _LOOK_AGAIN_SECONDS:
            self._look()
        key = self._keys.ciphers.get(key_id)
        if key is None:
            raise DecryptionKeyMissing("the data key", key_id, ", ".join(self.ids))
        data_key = decrypt(key, wrapped, _WRAPS + key_id.encode())
        if data_key is None:
            raise PayloadAltered("the data key", f"key {key_id!r} did not wrap it")
        return data_key

    def _look(self) -> None:
        """Read the files again; while they cannot be used, those of before stay in use."""
        self._looked_at = self._clock()
        try:
            entries = self._read()
            if entries == self._keys.entries:
                self._problem = ""
                return
            self._keys = _parsed(self._source, entries)
        except EncryptionKeysInvalid as error:
            if str(error) != self._problem:
                log.warning("keys not read again", extra={"error": str(error), "hint": error.hint})
            self._problem = str(error)
            return
        self._problem = ""
        self._version += 1
        log.info("keys read again", extra={"primary": self._keys.primary, "keys": list(self.ids)})


def read_keys(source: Path) -> KeyProvider:
    """Return the keys at a place.

    Args:
        source: a folder with a file for each entry, as a mounted Secret, or the manifest of a Secret.

    Raises:
        EncryptionKeysInvalid: if they cannot be used.
    """
    return provider_of(str(source), lambda: read_entries(source))


def provider_of(source: str, read: Callable[[], dict[str, bytes]]) -> KeyProvider:
    """Return the keys that entries have or name.

    Args:
        source: where they are from, for people.
        read: returns the entries as they are now, or raises `EncryptionKeysInvalid`.

    Raises:
        EncryptionKeysInvalid: if they cannot be used.
    """
    entries = read()
    if PROVIDER not in entries:
        return LocalKeys(source, read)
    from importlib import metadata  # noqa: PLC0415 - few queues have a provider

    name = entries[PROVIDER].decode(errors="replace").strip()
    found = [entry for entry in metadata.entry_points(group=PLUG_INS) if entry.name == name]
    if not found:
        raise EncryptionKeysInvalid(source, f"no package here has a key provider {name[:80]!r}")
    settings = {
        key: value.decode(errors="replace").strip() for key, value in entries.items() if key != PROVIDER
    }
    try:
        provider: KeyProvider = found[0].load()(settings)
    except EncryptionError:
        raise
    except Exception as error:  # whatever code of others raises
        problem = f"key provider {name!r} cannot be used: {type(error).__name__}: {error}"
        raise EncryptionKeysInvalid(source, problem) from error
    return provider


def read_entries(source: Path) -> dict[str, bytes]:
    """Return the entries of a folder, or of the manifest of a Secret.

    Raises:
        EncryptionKeysInvalid: if there are none.
    """
    try:
        if not source.is_dir():
            return secret_entries(str(source), source.read_text())
        # What a kubelet puts beside the entries of a Secret begins with a dot.
        files = [file for file in source.iterdir() if not file.name.startswith(".") and file.is_file()]
        return {file.name: file.read_bytes()[:_TEXT_LIMIT] for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise EncryptionKeysInvalid(str(source), str(error)) from None


def secret_entries(source: str, text: str) -> dict[str, bytes]:
    """Return the entries of a Secret's manifest.

    Raises:
        EncryptionKeysInvalid: if it is none.
    """
    import yaml  # noqa: PLC0415 - few processes read the manifest of a Secret

    try:
        document = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise EncryptionKeysInvalid(source, f"it is neither a folder nor a manifest: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != "Secret":
        raise EncryptionKeysInvalid(source, "it is neither a folder nor the manifest of a Secret")
    return entries_of(source, document)


def entries_of(source: str, secret: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the entries of a Secret, as the API server or a manifest has it.

    Raises:
        EncryptionKeysInvalid: if they are malformed.
    """
    data, plain = secret.get("data") or {}, secret.get("stringData") or {}
    if not isinstance(data, dict) or not isinstance(plain, dict):
        raise EncryptionKeysInvalid(source, "its data is not a map")
    try:
        decoded = {str(name): base64.b64decode(str(value), validate=True) for name, value in data.items()}
    except (binascii.Error, ValueError):
        raise EncryptionKeysInvalid(source, "its data is not base64") from None
    return decoded | {str(name): str(value).encode() for name, value in plain.items()}


def _parsed(source: str, entries: Mapping[str, bytes]) -> _Keys:
    ciphers = {}
    for name, value in entries.items():
        if name == PRIMARY:
            continue
        if KEY_ID.fullmatch(name) is None:
            raise EncryptionKeysInvalid(source, f"{name[:80]!r} cannot be the id of a key")
        try:
            key = base64.b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise EncryptionKeysInvalid(source, f"key {name!r} is not base64") from None
        if len(key) != KEY_BYTES:
            raise EncryptionKeysInvalid(source, f"key {name!r} has {len(key)} bytes instead of {KEY_BYTES}")
        ciphers[name] = cipher(key)
    primary = entries.get(PRIMARY, b"").decode(errors="replace").strip()
    if primary not in ciphers:
        known = ", ".join(sorted(ciphers)) or "none"
        raise EncryptionKeysInvalid(
            source, f"the primary key {primary[:80]!r} is not among its keys, which are: {known}"
        )
    return _Keys(primary, ciphers, dict(entries))
