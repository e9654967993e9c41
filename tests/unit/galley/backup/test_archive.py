"""The parts of an archive are read back as they were written, or not at all."""

import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from galley.backup.archive import (
    Manifest,
    manifest_in,
    manifest_part,
    message_part,
    messages_in,
    object_part,
    objects_in,
    parts_of,
    stored,
)
from galley.backup.errors import ArchiveDamaged, ArchiveTooNew
from galley.backup.sealing import Key, sealed
from galley.broker.snapshot import StoredMessage

KEY = Key(b"k" * 32)
MESSAGE = StoredMessage(
    "galley.task.ns.q.normal.sdk.1", 7, "2026-11-28T10:00:00Z", [("Galley", "v=1")], b"\x00{}"
)
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def a_manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "id": "i", "galley": "0", "server": "2", "taken_at": NOW, "finished_at": NOW, "streams": [],
        "objects": {}, "needs": [], "parts": [], **changes,
    }  # fmt: skip
    return Manifest(**values)


async def each(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(*parts: bytes) -> list[Any]:
    return [part async for part in parts_of(stored(each(*parts), KEY), [KEY], "a.galley")]


async def test_parts_are_read_back() -> None:
    messages = message_part("1/GW_ns_q/000001", "GW_ns_q", 1, [MESSAGE])[1]
    objects = object_part("taskqueues/000001", [{"metadata": {"name": "q"}}])[1]
    first, second, last = await read(messages, objects, manifest_part(a_manifest())[1])
    assert messages_in(first, "a") == [MESSAGE]
    assert objects_in(second, "a") == [{"metadata": {"name": "q"}}]
    assert manifest_in(last, "a") == a_manifest()


def a_part(packed: bytes, **changes: Any) -> bytes:
    """Return a part as one who has the key could write it."""
    heading = {"name": "x/1", "size": len(packed), "count": 0, "sha256": "", **changes}
    head = msgspec.json.encode(heading)
    return len(head).to_bytes(4, "big") + head + packed


@pytest.mark.parametrize("damage", [
    pytest.param([], id="nothing"),
    pytest.param([b"\x00\x00\x00\x00"], id="no heading"),
    pytest.param([b"\xff\xff\xff\xff"], id="a heading of 4 GiB"),
    pytest.param([b"\x00\x00\x00\x02[]"], id="a heading that is none"),
    pytest.param([b"\x00\x00\x00\x01\xff"], id="a heading that is no text"),
    pytest.param([b"\x00\x00\x4e\x20" + b"[" * 20_000], id="a heading nested too deeply"),
    pytest.param(None, id="a part that grows without end"),
    pytest.param([a_part(zlib.compress(b"[]")[:-1])], id="a part whose content is cut off"),
    pytest.param([a_part(b"", size=-5)], id="a part of fewer than no bytes"),
    pytest.param([object_part("x/1", [])[1]], id="no manifest"),
    pytest.param([object_part("x/1", [])[1][:-1], manifest_part(a_manifest())[1]], id="a part too short"),
    pytest.param([manifest_part(a_manifest())[1], b"more"], id="more after the manifest"),
])  # fmt: skip
async def test_what_is_not_written_so_is_refused(damage: list[bytes] | None) -> None:
    if damage is None:  # made here, since each process that collects tests would make it
        damage = [a_part(zlib.compress(b"0" * 70_000_000))]
    with pytest.raises(ArchiveDamaged):
        await read(*damage)


async def test_a_digest_that_does_not_fit_is_refused() -> None:
    made = object_part("x/1", [{"a": 1}])[1]
    other = made.replace(msgspec.json.encode(made[4:].split(b'"sha256":"')[1][:4].decode())[1:-1], b"0000", 1)
    assert other != made
    with pytest.raises(ArchiveDamaged, match="digest"):
        await read(other, manifest_part(a_manifest())[1])


async def test_a_part_of_other_content_is_refused() -> None:
    part, raw = object_part("x/1", [{}])
    [found, _] = await read(raw, manifest_part(a_manifest())[1])
    with pytest.raises(ArchiveDamaged, match="cannot be read"):
        messages_in(found, "a")
    fewer = msgspec.structs.replace(part, heading=msgspec.structs.replace(part.heading, count=2))
    with pytest.raises(ArchiveDamaged, match="1 entries instead of 2"):
        objects_in(fewer, "a")


@pytest.mark.parametrize("content", [b"\xff", b"[]", b'{"format":1,"x":' + b"[" * 9000 + b"]" * 9000 + b"}"])
async def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    [part] = await read(manifest_part(a_manifest())[1])
    with pytest.raises(ArchiveDamaged, match="manifest cannot be read"):
        manifest_in(msgspec.structs.replace(part, content=content), "a.galley")


async def test_a_manifest_of_a_later_format_is_told_apart() -> None:
    [part] = await read(manifest_part(a_manifest(format=2))[1])
    with pytest.raises(ArchiveTooNew):
        manifest_in(part, "a")


async def test_sealing_takes_pieces_of_any_size() -> None:
    raw = manifest_part(a_manifest())[1]
    single = (raw[place : place + 1] for place in range(len(raw)))
    [part] = [found async for found in parts_of(sealed(each(*single), KEY), [KEY], "a")]
    assert manifest_in(part, "a").id == "i"
