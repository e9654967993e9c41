"""An archive that was changed, cut off or exchanged in parts is refused before it is read."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galley.backup.errors import ArchiveDamaged, ArchiveKeyWrong, ArchiveTooNew, BackupKeyInvalid
from galley.backup.sealing import Key, read_key, sealed, unsealed

KEY = Key(bytes(range(32)))
CHUNK = 256 * 1024
HEADER = 14 + 2 + 8 + 32


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def seal(plain: bytes, key: Key = KEY) -> bytes:
    return b"".join([piece async for piece in sealed(pieces(plain), key)])


async def unseal(stored: bytes, *keys: Key, size: int = 100_000) -> bytes:
    return b"".join([piece async for piece in unsealed(pieces(stored, size), keys or (KEY,), "a.galley")])


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
async def test_what_was_sealed_is_read_back(length: int) -> None:
    plain = os.urandom(length)
    stored = await seal(plain)
    for size in (1 if length < 10 else 7919, CHUNK + 16, 10**7):
        assert await unseal(stored, size=size) == plain
    assert length < 8 or plain[:8] not in stored


async def test_every_truncation_is_refused() -> None:
    stored = await seal(b"x" * (2 * CHUNK))
    places = [0, 1, HEADER - 1, HEADER, HEADER + 15, HEADER + 16, HEADER + CHUNK, HEADER + CHUNK + 15,
              HEADER + CHUNK + 16, len(stored) - CHUNK, len(stored) - 16, len(stored) - 1]  # fmt: skip
    for place in places:
        with pytest.raises(ArchiveDamaged):
            await unseal(stored[:place])


@given(data=st.data())
@settings(max_examples=60)
async def test_every_flipped_bit_is_refused(data: st.DataObject) -> None:
    stored = bytearray(await seal(b"plain" * 60_000))
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))
    stored[bit // 8] ^= 1 << bit % 8
    with pytest.raises((ArchiveDamaged, ArchiveTooNew, ArchiveKeyWrong)):
        await unseal(bytes(stored))


async def test_chunks_cannot_change_places_and_none_can_be_left_out() -> None:
    stored = await seal(os.urandom(3 * CHUNK))
    header, body = stored[:HEADER], stored[HEADER:]
    one, two, rest = body[: CHUNK + 16], body[CHUNK + 16 : 2 * (CHUNK + 16)], body[2 * (CHUNK + 16) :]
    assert await unseal(header + one + two + rest)
    for exchanged in (two + one + rest, one + rest, two + rest, one + one + rest, one + two):
        with pytest.raises(ArchiveDamaged):
            await unseal(header + exchanged)


async def test_chunks_of_two_archives_cannot_be_mixed() -> None:
    one, other = await seal(b"a" * 2 * CHUNK), await seal(b"b" * 2 * CHUNK)
    with pytest.raises(ArchiveDamaged):
        await unseal(one[: HEADER + CHUNK + 16] + other[HEADER + CHUNK + 16 :])


async def test_a_wrong_key_is_told_with_the_id_of_the_right_one() -> None:
    other = Key(os.urandom(32))
    stored = await seal(b"x")
    with pytest.raises(ArchiveKeyWrong) as error:
        await unseal(stored, other)
    assert (error.value.needed, error.value.given) == (KEY.id, other.id)
    assert await unseal(stored, other, KEY) == b"x"


async def test_a_later_format_is_told_apart_from_damage() -> None:
    stored = bytearray(await seal(b"x"))
    stored[15] = 2
    with pytest.raises(ArchiveTooNew, match="has format 2, known here is 1"):
        await unseal(bytes(stored))


@pytest.mark.parametrize(
    "write",
    [
        bytes,
        lambda raw: base64.b64encode(raw) + b"\n",
        lambda raw: raw.hex().encode(),
        lambda raw: b" " + raw.hex().encode(),
    ],
)
def test_a_key_is_read_however_it_is_written(tmp_path: Path, write: object) -> None:
    assert callable(write)
    (tmp_path / "key").write_bytes(write(KEY.secret))
    assert read_key(tmp_path / "key") == KEY


@pytest.mark.parametrize(
    "text", [b"", b"short", b"x" * 33, b"\xff" * 31, base64.b64encode(b"x" * 31), b"g" * 64]
)
def test_what_is_no_key_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "key").write_bytes(text)
    with pytest.raises(BackupKeyInvalid, match="32 bytes are needed"):
        read_key(tmp_path / "key")


def test_a_key_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackupKeyInvalid, match="No such file"):
        read_key(tmp_path / "key")


def test_a_key_is_not_shown() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert "secret" not in repr(KEY)
