"""Data keys: renewed, kept, dropped, and what follows when a key service does not answer."""

import asyncio
from typing import Any, cast

import pytest

from galley.encryption import DecryptionKeyMissing, KeyServiceUnavailable, PayloadAltered, Wrapped
from galley.encryption import data_keys as module
from galley.encryption.data_keys import KEPT, KEPT_SECONDS, RENEW_SECONDS, DataKeys
from galley.encryption.token import parse
from tests.unit.galley.encryption.keys import DOWN, ONE, TWO, Service, Time, entries, local


async def sealed(keys: DataKeys, text: bytes = b"text") -> str:
    await keys.prepare()
    return keys.seal(text, b"bound")


async def test_a_data_key_is_used_for_five_minutes() -> None:
    now, service = Time(), Service()
    keys = DataKeys(service, now)
    first = {parse(await sealed(keys), "").head for _ in range(10)}
    now.now += RENEW_SECONDS
    assert parse(await sealed(keys), "").head not in first
    assert (len(first), service.asked) == (1, 2)


async def test_a_data_key_is_used_so_often_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_USES", 2)
    keys = DataKeys(Service(), Time())
    heads = [parse(await sealed(keys), "").head for _ in range(4)]
    assert heads[0] == heads[1] != heads[2] == heads[3]


async def test_a_data_key_is_unwrapped_once_an_hour() -> None:
    now, service = Time(), Service()
    token = await sealed(DataKeys(service, now))
    reader = DataKeys(service, now)
    for _ in range(3):
        assert await reader.open(token, b"bound", "it") == b"text"
    assert service.asked == 2
    now.now += KEPT_SECONDS
    assert await reader.open(token, b"bound", "it") == b"text"
    assert service.asked == 3


async def test_the_first_of_many_readers_asks_for_all() -> None:
    service = Service()
    token = await sealed(DataKeys(service))
    reader = DataKeys(service)
    await asyncio.gather(*(reader.open(token, b"bound", "it") for _ in range(50)))
    assert service.asked == 2


async def test_no_more_than_so_many_data_keys_are_kept() -> None:
    service = Service()
    tokens = [await sealed(DataKeys(service)) for _ in range(KEPT + 1)]
    reader = DataKeys(service)
    for token in tokens:
        await reader.open(token, b"bound", "it")
    asked = service.asked
    await reader.open(tokens[-1], b"bound", "it")
    assert service.asked == asked
    await reader.open(tokens[0], b"bound", "it")
    assert service.asked == asked + 1


async def test_what_was_altered_fills_no_memory() -> None:
    service = Service()
    token = await sealed(DataKeys(service))
    reader = DataKeys(service)
    for _ in range(2):
        with pytest.raises(
            PayloadAltered, match="it was altered: its encrypted payload was not written for it"
        ):
            await reader.open(token, b"elsewhere", "it")
    assert service.asked == 3


async def test_a_new_primary_key_encrypts_at_once_and_a_removed_one_decrypts_no_more() -> None:
    now, present = Time(), [entries("k1", k1=ONE)]
    keys = DataKeys(local(lambda: present[0], now), now)
    old = await sealed(keys)
    assert await keys.open(old, b"bound", "it") == b"text"
    present[0] = entries("k2", k1=ONE, k2=TWO)
    now.now += 6
    assert parse(await sealed(keys), "").key_id == "k2"
    assert await keys.open(old, b"bound", "it") == b"text"
    present[0] = entries("k2", k2=TWO)
    now.now += 6
    with pytest.raises(DecryptionKeyMissing, match="it is encrypted with key 'k1'; keys at hand: k2"):
        await keys.open(old, b"bound", "it")


async def test_a_key_that_becomes_primary_while_a_data_key_is_wrapped_is_used_next() -> None:
    class Rotated(Service):
        present = "1"

        def version(self) -> str:
            return self.present

        async def wrap(self, data_key: bytes) -> Wrapped:
            wrapped = await super().wrap(data_key)
            if self.present == "1":
                self.present = "2"
                # As a payload that comes meanwhile finds out.
                readers.append(asyncio.create_task(keys.open(token, b"bound", "it")))
                await asyncio.sleep(0)
            return wrapped

    readers: list[asyncio.Task[bytes]] = []
    token = await sealed(DataKeys(Service()))
    keys = DataKeys(Rotated())
    before = parse(await sealed(keys), "").head
    assert parse(await sealed(keys), "").head != before
    assert await readers[0] == b"text"


async def test_a_service_that_is_down_is_asked_again_after_a_second_and_not_by_each() -> None:
    now, service = Time(), Service()
    keys = DataKeys(service, now)
    service.down = DOWN
    for _ in range(3):
        with pytest.raises(KeyServiceUnavailable, match="the key service did not wrap a data key: 503"):
            await keys.prepare()
    assert service.asked == 1
    service.down = None
    now.now += 1.1
    assert await keys.open(await sealed(keys), b"bound", "it") == b"text"


async def test_an_older_data_key_is_used_on_while_the_service_is_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, service = Time(), Service()
    keys = DataKeys(service, now)
    first = parse(await sealed(keys), "").head
    service.down = RuntimeError("no route")
    now.now += RENEW_SECONDS
    assert parse(await sealed(keys), "").head == first
    assert "data key not renewed" in caplog.text
    service.down = None
    now.now += 2
    assert parse(await sealed(keys), "").head != first


async def test_whatever_a_provider_does_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    service = Service()
    token = await sealed(DataKeys(service))
    service.short = True
    with pytest.raises(KeyServiceUnavailable, match="it answered with 0 bytes"):
        await DataKeys(service).open(token, b"bound", "it")
    with pytest.raises(KeyServiceUnavailable, match="it answered with key '' and 0 bytes"):
        await DataKeys(service).prepare()
    service.down = OSError("reset")
    with pytest.raises(KeyServiceUnavailable, match="did not unwrap a data key: OSError: reset"):
        await DataKeys(service).open(token, b"bound", "it")

    class Slow(Service):
        async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
            await asyncio.Event().wait()
            return await super().unwrap(key_id, wrapped)

    with pytest.raises(KeyServiceUnavailable, match=r"no answer in 0.01 s"):
        await DataKeys(Slow()).open(token, b"bound", "it")


@pytest.mark.parametrize("answer", [None, "no key", 7, ("k1", "text"), (b"k1", b"data"), ("k1", b"data", 1)])
async def test_a_provider_that_answers_with_something_else_is_one_that_is_down(answer: Any) -> None:
    """None of it may get to the worker as an error that nothing expects."""

    class Odd(Service):
        async def wrap(self, _: bytes) -> Wrapped:
            return cast("Wrapped", answer)

        async def unwrap(self, _: str, _wrapped: bytes) -> bytes:
            return cast("bytes", answer)

    with pytest.raises(KeyServiceUnavailable, match=r"did not wrap a data key: (Type|Value)Error"):
        await DataKeys(Odd()).prepare()
    token = await sealed(DataKeys(Service()))
    with pytest.raises(KeyServiceUnavailable, match="did not unwrap a data key: TypeError: it answered with"):
        await DataKeys(Odd()).open(token, b"bound", "it")


async def test_a_primary_key_that_is_gone_is_no_fault_of_a_task() -> None:
    service = Service()
    service.down = DecryptionKeyMissing("the data key", "k9", "none")
    with pytest.raises(KeyServiceUnavailable, match=r"did not wrap a data key: DecryptionKeyMissing: .*'k9'"):
        await DataKeys(service).prepare()


async def test_a_provider_that_cannot_tell_its_version_is_one_that_is_down() -> None:
    class Torn(Service):
        def version(self) -> str:
            raise ValueError("torn")

    keys = DataKeys(Torn())
    with pytest.raises(KeyServiceUnavailable, match="did not say which keys it has: ValueError: torn"):
        await keys.prepare()
    token = await sealed(DataKeys(Service()))
    with pytest.raises(KeyServiceUnavailable, match="ValueError: torn"):
        await keys.open(token, b"bound", "it")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "g1",
        "g1.k1..",
        "g2.k1.AAAA.AAAA",
        "g1.k 1.AAAA.AAAA",
        "g1.k1.AAAA.AAAA",
        "g1.k1.*.AAAA",
        "g1.k1.é.é",
    ],
)
async def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(PayloadAltered):
        await DataKeys(Service()).open(token, b"bound", "it")
