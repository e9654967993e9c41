"""A restore that is interrupted says how to continue."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from galley.backup.archive import Manifest, manifest_part, object_part, stored
from galley.backup.destination import Folder
from galley.backup.errors import RestoreIncomplete, RestoreRefused
from galley.backup.objects import Made, ObjectKind
from galley.backup.restore import Restore
from galley.backup.sealing import Key
from galley.broker.connection import Broker
from galley.errors import GalleyError

KEY = Key(b"k" * 32)
NOW = datetime(2026, 11, 28, tzinfo=UTC)
QUEUE = {"metadata": {"namespace": "shop", "name": "q"}, "spec": {}}


async def archived(folder: Path, queue: dict[str, Any] = QUEUE, parts_: int = 1) -> str:
    """Write an archive with two TaskQueues and no streams."""
    other = {**queue, "metadata": {"namespace": "bank", "name": "q"}}
    made = [object_part(f"taskqueues/{number:06}", [queue, other]) for number in range(1, parts_ + 1)]
    headings = [part.heading for part, _ in made]
    manifest = Manifest("i", "0", "2", NOW, NOW, [], {"taskqueues": 2 * parts_}, [], headings)

    async def parts() -> AsyncIterator[bytes]:
        for _, content in made:
            yield content
        yield manifest_part(manifest)[1]

    await Folder(folder).write("a.galley", stored(parts(), KEY))
    return "a.galley"


class Refusing:
    """The objects of a cluster that takes none."""

    async def listed(self, _: ObjectKind, _namespaces: Sequence[str]) -> AsyncIterator[list[dict[str, Any]]]:
        yield []

    async def look(self, _: ObjectKind, _body: dict[str, Any]) -> Made | None:
        return None

    async def create(self, _: ObjectKind, _body: dict[str, Any]) -> Made:
        raise GalleyError("there is no namespace shop")


async def test_a_restore_whose_streams_are_complete_continues_with_what_is_there(tmp_path: Path) -> None:
    """It would refuse to write into them, if it was only run again."""
    broker = Broker("nats://127.0.0.1:1", name="test")
    restore = Restore(broker, Folder(tmp_path), await archived(tmp_path), [KEY], Refusing())
    outline = await restore.outline()
    with pytest.raises(RestoreIncomplete, match="there is no namespace shop") as told:
        await restore.run(outline)
    assert "again with --keep-existing: it continues" in told.value.hint


async def test_a_restore_that_ends_before_is_only_run_again(tmp_path: Path) -> None:
    broker = Broker("nats://127.0.0.1:1", name="test")
    restore = Restore(broker, Folder(tmp_path), await archived(tmp_path), [KEY], Refusing())
    outline = await restore.outline()
    (tmp_path / "a.galley").unlink()
    with pytest.raises(RestoreIncomplete, match="there is no archive") as told:
        await restore.run(outline)
    assert "the same command again: it continues" in told.value.hint


class Taking(Refusing):
    """The objects of a cluster that takes all."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []

    async def create(self, _: ObjectKind, body: dict[str, Any]) -> Made:
        self.created.append(body)
        return Made.CREATED


@pytest.mark.parametrize("other", [
    {"queue": {**QUEUE, "spec": {"worker": {"image": "another"}}}},
    {"parts_": 2},
    {"parts_": 0},
])  # fmt: skip
async def test_an_archive_that_was_replaced_after_it_was_verified_is_not_restored(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    """Such as by an older one, which has the same key."""
    broker, cluster = Broker("nats://127.0.0.1:1", name="test"), Taking()
    restore = Restore(broker, Folder(tmp_path), await archived(tmp_path), [KEY], cluster)
    outline = await restore.outline()
    await archived(tmp_path, **other)
    with pytest.raises(RestoreIncomplete, match="it is another one than was verified"):
        await restore.run(outline)
    assert cluster.created == []


@pytest.mark.parametrize(("namespaces", "only", "problem"), [
    ({"shp": "restored"}, (), "namespace 'shp' is not in the archive; nothing was restored"),
    ({}, ("shop", "shp"), "namespace 'shp' is not in the archive"),
    ({"shop": "bank"}, (), "namespaces 'bank' and 'shop' would both become 'bank'"),
    ({"shop": "one", "bank": "one"}, (), "namespaces 'bank' and 'shop' would both become 'one'"),
    ({"shop": "a.b"}, (), "'a.b' cannot be the name of a namespace"),
    ({"shop": "Shop"}, (), "'Shop' cannot be the name of a namespace"),
])  # fmt: skip
async def test_a_namespace_that_is_named_wrongly_is_refused(
    tmp_path: Path, namespaces: dict[str, str], only: Sequence[str], problem: str
) -> None:
    """It would be restored under its old name, or not at all, or two of them into one."""
    broker = Broker("nats://127.0.0.1:1", name="test")
    name = await archived(tmp_path)
    with pytest.raises(RestoreRefused, match=problem) as refused:
        await Restore(broker, Folder(tmp_path), name, [KEY], None, namespaces, only).outline()
    assert "--map" in refused.value.hint
    moved = Restore(broker, Folder(tmp_path), name, [KEY], None, {"shop": "bank"}, ["shop"])
    assert (await moved.outline()).archive == name
