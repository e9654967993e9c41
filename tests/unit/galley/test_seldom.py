"""What is seldom, or wrong, in the SDK: each such value is refused in words, or stands for nothing at all."""

import base64
import getpass
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from pydantic import create_model

from galley import File, FileUnreadable, ResultMismatch, SomeRefused, chain, task
from galley.audit import _own
from galley.backup.destination import Bucket
from galley.backup.errors import DestinationInvalid
from galley.broker.identity import _signature
from galley.cli import keys
from galley.cli.errors import Misuse
from galley.cli.result import _written
from galley.cli.schedule import _moment, _number
from galley.current import CurrentTask
from galley.encryption import PayloadAltered
from galley.encryption.payloads import _bound, _subject, _tail
from galley.encryption.token import key_in
from galley.errors import CheckpointInvalid, CredentialsInvalid, TlsInvalid
from galley.event import Event
from galley.logs import JsonLines
from galley.note import seal_in
from galley.objects.bucket import BucketObjects
from galley.objects.errors import ObjectDamaged, ObjectStoreInvalid
from galley.objects.sealing import Seal
from galley.objects.store import SECONDS_VARIABLE, VARIABLE, Objects
from galley.reference import Reference
from galley.resources.description import descriptions
from galley.testing import AsyncEagerClient, EagerClient
from galley.tls import Tls
from galley.topic import MappingFailed, _top
from galley.typed import Typed, plain_classes, typed
from galley.workflow.continuation import rule_of
from galley.workflow.errors import WorkflowInvalid
from galley.workflow.plan import compiled
from tests.support.builders import an_address, an_envelope
from tests.unit.galley.encryption.keys import payloads

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HERE = an_address(id="one")


@task(queue="images")
def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def deep(levels: int) -> Any:
    item: Any = double.call(1)
    for _ in range(levels):
        item = chain(item, double.call(2))
    return item


def an_event(data: bytes) -> Event:
    return Event("1", "here", "made", NOON, Raw(data))


def checkpoint(value: object) -> None:
    CurrentTask("one", "images", "normal", "double", 1, NOON, None, "").checkpoint(value)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a checkpoint that is no JSON": (lambda: checkpoint(object()), CheckpointInvalid, "written as JSON"),
    "a policy of no name": (lambda: rule_of("shrug"), WorkflowInvalid, "shrug"),
    "chains of chains without an end": (lambda: compiled(deep(3000)), WorkflowInvalid, "too deeply"),
    "data of an event that is no JSON": (lambda: _top("data", an_event(b"{")), MappingFailed, "read"),
    "an event that is no JSON": (lambda: _top("event", an_event(b"\xff")), MappingFailed, "read"),
    "a time of a schedule": (lambda: _moment("soon"), Misuse, "'soon' is not a time"),
    "a number of a schedule": (lambda: _number("few"), Misuse, "'few' is not a number of seconds"),
    "a bucket of no name": (lambda: Bucket("s3:///a", {}, 1), DestinationInvalid, "names no bucket"),
    "a bucket's settings": (
        lambda: Bucket("s3://a", {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "perhaps"}, 1),
        DestinationInvalid, "perhaps",
    ),
    "a bucket of objects": (
        lambda: BucketObjects("s3:///a", {}, retry_seconds=1), ObjectStoreInvalid, "names no bucket",
    ),
    "seconds of the object store": (
        lambda: Objects.at(None, {VARIABLE: "s3://a", SECONDS_VARIABLE: "soon"}),  # type: ignore[arg-type]
        ObjectStoreInvalid, "GALLEY_OBJECT_SECONDS is 'soon'",
    ),
    "authorities that are no PEM": (
        lambda: Tls(lambda: "-----BEGIN CERTIFICATE-----\nnone\n").context(), TlsInvalid, "no certificates",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_words(what: str) -> None:
    do, error, says = REFUSED[what]
    with pytest.raises(error, match=says):
        do()


NOTHING: dict[str, tuple[Callable[[], Any], Any]] = {
    "a sealed note that is none": (lambda: seal_in(b'{"sealed":'), ""),
    "a token that is none": (lambda: key_in("what?"), ""),
    "a part that was altered": (lambda: Seal.new().open(0, b"x" * 40, last=True), None),
    "a part too short to be one": (lambda: Seal.new().open(0, b"", last=True), None),
}


@pytest.mark.parametrize("what", NOTHING)
def test_what_says_nothing_stands_for_nothing(what: str) -> None:
    do, expected = NOTHING[what]
    assert do() == expected


def test_an_annotation_need_not_have_a_hash() -> None:
    assert plain_classes([]) == frozenset()
    assert isinstance(typed([]), Typed)


def test_a_container_whose_user_has_no_name_has_none_in_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", no_name)
    assert _own.__wrapped__().user == ""


async def test_a_payload_that_is_sealed_and_none_is_told_as_altered() -> None:
    held = payloads()
    keys = held.keys_of(HERE)
    assert keys is not None
    await held.prepare(HERE)
    body = await held.task_bytes(HERE, an_envelope("charge", input={"card": 1}))
    head, _, _ = body.rpartition(b',"sealed":"')
    token = keys.seal(b"[", _bound("task", HERE, head))
    with pytest.raises(PayloadAltered, match="cannot be read"):
        await held.read_task(HERE, head + b',"sealed":"' + _tail(token, ""))
    with pytest.raises(PayloadAltered, match="cannot be read"):
        await held._end(keys, keys.seal(b"[", _bound("record", HERE)), _bound("record", HERE), _subject(HERE))


class Wordless:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_a_line_that_cannot_be_written_costs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    written = io.BytesIO()
    handler = JsonLines(written, {})
    handler.write_soon(logging.INFO, "said", {"value": Wordless()})
    handler.write_soon(logging.INFO, "said", {"value": 1})
    assert json.loads(written.getvalue())["value"] == 1
    assert "said" in capsys.readouterr().err


def test_a_file_is_not_saved_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(FileUnreadable, match="none"):
        File(tmp_path / "a").save(tmp_path / "none" / "b")


async def test_a_result_is_not_written_where_nothing_can_be(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="none"):
        await _written(None, {"a": 1}, tmp_path / "none" / "b")  # type: ignore[arg-type]


def test_new_keys_replace_no_file_and_say_so(tmp_path: Path) -> None:
    keys._write(tmp_path / "keys", "secret")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Misuse, match="File exists"):
        keys._write(tmp_path / "keys", "another")
    assert (tmp_path / "keys").read_text() == "secret"


def test_new_keys_on_a_full_disk_are_told_as_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(os, "open", lambda *_: full)
    with pytest.raises(Misuse, match="No space left"):
        keys._write(tmp_path / "keys", "secret")


def test_a_reference_without_a_usable_key_is_told_as_damaged() -> None:
    for key in ("no base 64!", base64.b64encode(b"short").decode()):
        with pytest.raises(ObjectDamaged, match="no usable key"):
            Objects._seal(Reference("a" * 64, 3, key=key), "its input", "here")


def test_a_result_that_does_not_fit_the_annotation_is_told_in_tests_too() -> None:
    client = EagerClient()
    handle = client.submit(double.call(2))
    assert handle.result() == 4
    with pytest.raises(ResultMismatch):
        client._tasks.result(handle.address, Typed(str))


async def test_the_client_for_tests_tells_those_that_were_refused_and_runs_the_others() -> None:
    client, once = AsyncEagerClient(), double.call(1).options(unique="once")
    with pytest.raises(SomeRefused) as raised:
        await client.submit_many([once, once, double.call(2)])
    assert set(raised.value.refused) == {1}
    assert [await each.result() for each in raised.value.submitted.values()] == [2, 4]


def test_a_process_of_another_user_runs() -> None:
    program = (
        "import os\n"
        "from galley.dev_file import DevFile\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "print(DevFile('nats', 'default', 1, '').alive)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


def test_a_model_without_source_has_no_descriptions() -> None:
    assert descriptions(create_model("Made", size=(int, 0))) == {}


WITHOUT_LIBRARY: dict[str, tuple[str, Callable[[], Any], type[Exception], str]] = {
    "signing": (
        "nacl.signing",
        lambda: _signature("S" * 56, "nonce"),
        CredentialsInvalid,
        "need PyNaCl installed",
    ),
    "buckets": (
        "galley.objects.bucket",
        lambda: Objects.at(object(), {VARIABLE: "s3://bucket"}),  # type: ignore[arg-type]
        ObjectStoreInvalid,
        "the library for buckets is not installed",
    ),
}


@pytest.mark.parametrize("what", WITHOUT_LIBRARY)
def test_a_library_that_is_not_installed_is_named(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, use, error, says = WITHOUT_LIBRARY[what]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(error, match=says):
        use()
