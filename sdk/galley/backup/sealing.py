"""Encryption of archives: AES-256-GCM in chunks, so that a stream of any size needs one chunk of memory.

    header   magic, format (2 bytes), id of the key (8 bytes), salt (32 bytes)
    chunks   256 KiB each, the last one shorter or empty; 16 bytes more when encrypted

The key of a file is derived from the key of the owner and the salt. The nonce of a chunk is its number and
whether it is the last one, so that chunks cannot be exchanged, repeated, left out, or cut off at the end. The
header is authenticated with each chunk.
"""

import base64
import binascii
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from galley.backup.errors import ArchiveDamaged, ArchiveKeyWrong, ArchiveTooNew, BackupKeyInvalid

FORMAT: Final = 1
"""Version of what is written here; readers refuse later ones."""

_MAGIC: Final = b"galley backup\n"
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 8
_SALT_BYTES: Final = 32
_HEADER_BYTES: Final = len(_MAGIC) + 2 + _ID_BYTES + _SALT_BYTES
_CHUNK: Final = 256 * 1024
_TAG: Final = 16


@dataclass(frozen=True)
class Key:
    """A key of 32 bytes."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Tells one key from another, and nothing about it."""
        return sha256(b"galley backup key id\n" + self.secret).hexdigest()[: 2 * _ID_BYTES]

    def derived(self, salt: bytes) -> AESGCM:
        """Return the cipher of one file."""
        expand = HKDF(SHA256(), _KEY_BYTES, salt, b"galley backup file key")
        return AESGCM(expand.derive(self.secret))


def read_key(path: Path) -> Key:
    """Return the key in a file: 32 bytes as they are, in base64 or in hexadecimal digits.

    Raises:
        BackupKeyInvalid: if there is none in it.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BackupKeyInvalid(str(path), error.strerror or type(error).__name__) from None
    if len(raw) == _KEY_BYTES:
        return Key(raw)
    text = raw.strip()
    for decode in (bytes.fromhex, lambda words: base64.b64decode(words, validate=True)):
        try:
            secret = decode(text.decode("ascii"))
        except (ValueError, binascii.Error):
            continue
        if len(secret) == _KEY_BYTES:
            return Key(secret)
    raise BackupKeyInvalid(str(path), f"{_KEY_BYTES} bytes are needed, as they are, in base64 or hexadecimal")


async def sealed(plain: AsyncIterator[bytes], key: Key) -> AsyncIterator[bytes]:
    """Yield what is to be stored of a stream."""
    salt = os.urandom(_SALT_BYTES)
    header = _MAGIC + FORMAT.to_bytes(2, "big") + bytes.fromhex(key.id) + salt
    cipher, number, waiting = key.derived(salt), 0, bytearray()
    yield header
    async for data in plain:
        waiting += data
        # One byte more than a chunk: only then is it known not to be the last one.
        while len(waiting) > _CHUNK:
            yield cipher.encrypt(_nonce(number, last=False), bytes(waiting[:_CHUNK]), header)
            del waiting[:_CHUNK]
            number += 1
    yield cipher.encrypt(_nonce(number, last=True), bytes(waiting), header)


async def unsealed(stored: AsyncIterator[bytes], keys: Sequence[Key], archive: str) -> AsyncIterator[bytes]:
    """Yield the stream that was sealed, each part of it after it was authenticated.

    Args:
        stored: what was stored.
        keys: one of which fits.
        archive: its name, for errors.

    Raises:
        ArchiveDamaged: if it was truncated or changed.
        ArchiveKeyWrong: if none of the keys is the one it was sealed with.
        ArchiveTooNew: if a newer version wrote it.
    """
    waiting, header, cipher, number = bytearray(), b"", None, 0
    async for data in stored:
        waiting += data
        if cipher is None and len(waiting) >= _HEADER_BYTES:
            header = bytes(waiting[:_HEADER_BYTES])
            del waiting[:_HEADER_BYTES]
            cipher = _cipher_of(header, keys, archive)
        while cipher is not None and len(waiting) > _CHUNK + _TAG:
            yield _opened(cipher, (number, False), bytes(waiting[: _CHUNK + _TAG]), header, archive)
            del waiting[: _CHUNK + _TAG]
            number += 1
    if cipher is None:
        raise ArchiveDamaged(archive, f"it has {len(waiting)} bytes, which is less than its header")
    yield _opened(cipher, (number, True), bytes(waiting), header, archive)


def _cipher_of(header: bytes, keys: Sequence[Key], archive: str) -> AESGCM:
    if not header.startswith(_MAGIC):
        raise ArchiveDamaged(archive, "it does not begin as an archive does")
    rest = header[len(_MAGIC) :]
    if (found := int.from_bytes(rest[:2], "big")) != FORMAT:
        raise ArchiveTooNew(archive, str(found), str(FORMAT))
    needed, salt = rest[2 : 2 + _ID_BYTES].hex(), rest[2 + _ID_BYTES :]
    for key in keys:
        if key.id == needed:
            return key.derived(salt)
    raise ArchiveKeyWrong(archive, needed, ", ".join(key.id for key in keys) or "none")


def _opened(cipher: AESGCM, place: tuple[int, bool], data: bytes, header: bytes, archive: str) -> bytes:
    number, last = place
    try:
        return cipher.decrypt(_nonce(number, last=last), data, header)
    except (InvalidTag, ValueError):
        what = "it ends too early, or its last chunk was changed" if last else f"chunk {number} was changed"
        raise ArchiveDamaged(
            archive, f"{what} (byte {_HEADER_BYTES + number * (_CHUNK + _TAG)} and after)"
        ) from None


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
