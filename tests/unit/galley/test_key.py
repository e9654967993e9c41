"""Keys and their rate: what a key may be, what is stored of it, and how many starts a bucket has."""

import random

import pytest

from galley import key as wire
from galley.errors import EnvelopeInvalid, SubmissionInvalid
from galley.key import KEY_LIMIT, NO_PERMITS, Permits, Rate, check_key, digest_of_key


@pytest.mark.parametrize("key", ["a", "customer 7", "ü" * (KEY_LIMIT // 2), "*.>", "\n"])
def test_a_key_may_be_any_text_of_some_bytes(key: str) -> None:
    assert check_key(key) == key
    assert digest_of_key(key).isalnum()


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("", "not empty"),
        ("x" * (KEY_LIMIT + 1), "257 bytes"),
        ("ü" * 10_000, "20000 bytes"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_other_keys_are_refused_and_told_why(key: str, told: str) -> None:
    with pytest.raises(SubmissionInvalid, match="key") as refused:
        check_key(key)
    assert told in f"{refused.value} {refused.value.hint}"


def test_permits_survive_being_written_and_read() -> None:
    for permits in (NO_PERMITS, Permits(("a", "b"), 1.8e9)):
        assert wire.decode(wire.encode(permits)) == permits
    assert wire.encode(NO_PERMITS) == b"{}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"held": 1}',
        b'{"fullAt": -1}',
        b'{"fullAt": 1e300}',
        b'{"fullAt": 1' + b"0" * 400 + b"}",
    ],
)
def test_permits_that_galley_did_not_write_are_an_error_and_no_crash(body: bytes) -> None:
    with pytest.raises(EnvelopeInvalid, match="permits of a key"):
        wire.decode(body)


@pytest.mark.parametrize("seed", range(20))
def test_a_bucket_has_its_burst_and_fills_at_its_rate(seed: int) -> None:
    choice = random.Random(seed)
    rate = Rate(choice.randint(1, 1000), choice.choice([0.5, 1.0, 60.0, 86_400.0]), choice.randint(1, 50))
    now, full_at, starts = 1.8e9, 0.0, []
    assert rate.ready(full_at, now) == rate.burst
    for _ in range(200):
        ready = rate.ready(full_at, now)
        taken = choice.randint(0, ready)
        full_at = rate.taken(full_at, now, taken)
        starts += [now] * taken
        assert rate.ready(full_at, now) == ready - taken
        if taken == ready:
            at = rate.next_at(full_at)
            assert at > now - 1e-3
            assert rate.ready(full_at, at) >= 1
        now += choice.random() * 3 * rate.seconds / rate.tasks
    for first, begin in enumerate(starts):
        for last in (len(starts) - 1, min(first + rate.burst, len(starts) - 1)):
            allowed = rate.burst + (starts[last] - begin) * rate.tasks / rate.seconds
            assert last - first + 1 <= allowed + 0.01 * (last - first + 1)
