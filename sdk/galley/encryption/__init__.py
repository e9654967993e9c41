"""Encryption of what tasks carry, per queue, between those who hold its keys: producers and workers.

A *data key* encrypts payloads with AES-256-GCM; a key of the queue wraps the data key, which travels with
each payload. The keys of a queue are files, as a Secret mounts them, or a service (`KeyProvider`).
See docs/adr/0020-encrypted-payloads.md for the format and for what it protects against.
"""

from galley.encryption.errors import (
    DecryptionKeyMissing,
    EncryptionError,
    EncryptionKeysInvalid,
    EncryptionRequired,
    KeyServiceUnavailable,
    PayloadAltered,
    PlaintextRefused,
    QueueNotEncrypted,
)
from galley.encryption.keys import KeyProvider, LocalKeys, Wrapped, read_keys

__all__ = [
    "DecryptionKeyMissing",
    "EncryptionError",
    "EncryptionKeysInvalid",
    "EncryptionRequired",
    "KeyProvider",
    "KeyServiceUnavailable",
    "LocalKeys",
    "PayloadAltered",
    "PlaintextRefused",
    "QueueNotEncrypted",
    "Wrapped",
    "read_keys",
]
