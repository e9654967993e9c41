"""Keys: from folders, manifests and plug-ins, and read again while they are in use."""

import base64
from collections.abc import Mapping
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

from galley.encryption import (
    DecryptionKeyMissing,
    EncryptionKeysInvalid,
    KeyProvider,
    LocalKeys,
    PayloadAltered,
    read_keys,
)
from galley.encryption.given import keys_in, payloads_with, read_given
from galley.encryption.keys import PLUG_INS, read_entries
from tests.support.builders import an_address
from tests.unit.galley.encryption.keys import ONE, TWO, Service, Time, entries, local

DATA_KEY = bytes(32)


def folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


async def test_a_folder_and_a_manifest_have_the_same_keys(tmp_path: Path) -> None:
    there = folder(tmp_path / "keys", primary="k1\n", k1=f"{ONE}\n", k2=TWO)
    (there / "..data").mkdir()
    plain = {"apiVersion": "v1", "kind": "Secret", "stringData": {"primary": "k1", "k1": ONE, "k2": TWO}}
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in plain["stringData"].items()}  # type: ignore[attr-defined]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "data.json").write_text(f'{{"kind": "Secret", "data": {str(encoded)!s}}}'.replace("'", '"'))
    providers = [read_keys(each) for each in (there, tmp_path / "plain.yaml", tmp_path / "data.json")]
    wrapped = await providers[0].wrap(DATA_KEY)
    assert wrapped.key_id == "k1"
    for provider in providers:
        assert isinstance(provider, LocalKeys)
        assert provider.ids == ("k1", "k2")
        assert await provider.unwrap(*wrapped) == DATA_KEY


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "the primary key '' is not among its keys, which are: none"),
        ({"primary": "k2", "k1": ONE}, "the primary key 'k2' is not among its keys, which are: k1"),
        ({"primary": "k1", "k1": "no base64!"}, "key 'k1' is not base64"),
        ({"primary": "k1", "k1": base64.b64encode(b"short").decode()}, "key 'k1' has 5 bytes instead of 32"),
        ({"primary": "k1", "k1": ONE, "a.b": ONE}, "'a.b' cannot be the id of a key"),
        ({"provider": "nowhere"}, "no package here has a key provider 'nowhere'"),
    ],
    ids=str,
)
def test_keys_that_cannot_be_used_are_told_apart(
    content: dict[str, str], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(EncryptionKeysInvalid, match=problem):
        read_keys(folder(tmp_path / "keys", **content))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: TaskQueue", "neither a folder nor the manifest of a Secret"),
        ("just words", "neither a folder nor the manifest of a Secret"),
        ("{", "neither a folder nor a manifest"),
        ("a: [", "neither a folder nor a manifest"),
        ("[" * 100_000, "neither a folder nor a manifest"),
        ("kind: Secret\ndata: 7", "its data is not a map"),
        ("kind: Secret\ndata: {k1: '!'}", "its data is not base64"),
        ("kind: Secret\ndata: {k1: é}", "its data is not base64"),
        ("\x00", "neither a folder nor a manifest"),
    ],
    ids=lambda text: text[:20],
)
def test_a_file_that_is_no_secret_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(EncryptionKeysInvalid, match=problem):
        read_keys(tmp_path / "keys.yaml")


def test_a_place_where_nothing_is_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncryptionKeysInvalid, match="No such file"):
        read_entries(tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(EncryptionKeysInvalid, match="can't decode"):
        read_entries(tmp_path / "binary")


async def test_a_new_primary_key_is_noticed_within_five_seconds() -> None:
    now, present = Time(), [entries("k1", k1=ONE)]
    keys = local(lambda: present[0], now)
    before = keys.version()
    present[0] = entries("k2", k1=ONE, k2=TWO)
    now.now += 4.9
    assert keys.version() == before
    now.now += 0.2
    assert keys.version() != before
    assert (await keys.wrap(DATA_KEY)).key_id == "k2"


async def test_a_key_that_is_missing_is_looked_for_at_once_and_once_a_second() -> None:
    now, present = Time(), [entries("k1", k1=ONE)]
    keys = local(lambda: present[0], now)
    with pytest.raises(DecryptionKeyMissing, match="encrypted with key 'k2'; keys at hand: k1"):
        await keys.unwrap("k2", b"x")
    present[0] = entries("k2", k1=ONE, k2=TWO)
    wrapped = await local(lambda: present[0]).wrap(DATA_KEY)
    with pytest.raises(DecryptionKeyMissing):
        await keys.unwrap(*wrapped)
    now.now += 1.1
    assert await keys.unwrap(*wrapped) == DATA_KEY


async def test_files_that_cannot_be_used_leave_the_keys_of_before(caplog: pytest.LogCaptureFixture) -> None:
    now, present = Time(), [entries("k1", k1=ONE)]
    keys = local(lambda: present[0], now)
    before = keys.version()
    present[0] = entries("k9", k1=ONE)
    for _ in range(3):
        now.now += 10
        assert keys.version() == before
    assert [record.message for record in caplog.records] == ["keys not read again"]
    assert (await keys.wrap(DATA_KEY)).key_id == "k1"
    present[0] = entries("k1", k1=ONE)
    now.now += 10
    assert keys.version() == before


async def test_what_another_key_wrapped_is_refused() -> None:
    wrapped = await local().wrap(DATA_KEY)
    with pytest.raises(PayloadAltered, match="key 'k1' did not wrap it"):
        await local(lambda: entries("k1", k1=TWO)).unwrap(*wrapped)
    with pytest.raises(PayloadAltered):
        await local().unwrap("k1", b"short")


class Found:
    def __init__(self, settings: Mapping[str, str]) -> None:
        if "fail" in settings:
            raise RuntimeError(settings["fail"])
        if "refuse" in settings:
            raise EncryptionKeysInvalid("the service", "no such key")
        self.settings = settings


def test_a_provider_of_another_package_gets_the_other_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("found", f"{__name__}:Found", PLUG_INS)
    monkeypatch.setattr(metadata, "entry_points", lambda **_group: [entry])
    provider: Any = read_keys(folder(tmp_path / "keys", provider="found", url="https://kms\n"))
    assert provider.settings == {"url": "https://kms"}
    with pytest.raises(
        EncryptionKeysInvalid, match="key provider 'found' cannot be used: RuntimeError: no wonder"
    ):
        read_keys(folder(tmp_path / "keys", fail="no wonder"))
    (tmp_path / "keys" / "fail").unlink()
    with pytest.raises(EncryptionKeysInvalid, match="keys of the service: no such key"):
        read_keys(folder(tmp_path / "keys", refuse="yes"))


def test_keys_are_given_for_all_queues_or_for_some(tmp_path: Path) -> None:
    found = read_given(["images=a/b", "/all=1/keys"], Path("/here"))
    assert found == {"images": Path("/here/a/b"), "": Path("/all=1/keys")}
    assert keys_in({}) == []
    assert keys_in({"GALLEY_KEYS": "/keys:images=x"}) == ["/keys", "images=x"]
    with pytest.raises(EncryptionKeysInvalid, match="there are keys for 'images' already"):
        read_given(["images=a", "images=b"])
    with pytest.raises(EncryptionKeysInvalid, match="there are keys for all queues already"):
        read_given(["a", "b"])
    service: KeyProvider = Service()
    some = payloads_with({"images": service})
    assert some.keys_of(an_address(queue="images")) is not None
    assert some.keys_of(an_address(queue="other")) is None
    every = payloads_with(folder(tmp_path / "keys", primary="k1", k1=ONE))
    assert every.keys_of(an_address(queue="other")) is every.keys_of(an_address(queue="images")) is not None
    assert payloads_with(None).keys_of(an_address()) is None
