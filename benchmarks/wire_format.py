"""What JSON costs over msgpack, as a share of the CPU one task costs: `python -m benchmarks.wire_format`.

Both codecs are msgspec's, over the same typed structures. An envelope is encoded by its producer and decoded
by its worker, the input in it by the handler's process, a record by the worker and by each waiter.
Best of several rounds, single thread.
"""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Raw

from galley.envelope import Envelope
from galley.history import EndedBy, History, PastAttempt
from galley.record import Outcome, Record, State

TASK_MICROSECONDS: Final = 70.0
"""CPU of one no-op task by all processes, nats-server included: 36 + 2 + 32 us, measured earlier."""

ROUNDS: Final = 15
CALLS: Final = 20_000

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAST: Final = History(
    errors=2,
    attempts=tuple(
        PastAttempt(number, EndedBy.ERROR, "ValueError", "no such picture", "images-1", NOON, NOON)
        for number in (1, 2)
    ),
)


def microseconds(action: Callable[[], object]) -> float:
    """Return the CPU time of one call."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for _ in range(CALLS):
            action()
        best = min(best, time.process_time_ns() - began)
    return best / CALLS / 1000


def measure(name: str, value: Envelope | Record) -> tuple[str, float, float, int, int]:
    """Return name, microseconds to encode and decode in JSON and in msgpack, and the bytes of both."""
    kind = type(value)
    json_encode, json_decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(kind).decode
    pack_encode, pack_decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(kind).decode
    json_body, pack_body = json_encode(value), pack_encode(_packed(value))
    packed = _packed(value)
    json_time = microseconds(lambda: json_encode(value)) + microseconds(lambda: json_decode(json_body))
    pack_time = microseconds(lambda: pack_encode(packed)) + microseconds(lambda: pack_decode(pack_body))
    return name, json_time, pack_time, len(json_body), len(pack_body)


def measure_input(value: object) -> tuple[str, float, float, int, int]:
    """Return the same for an input between its caller and its handler."""
    json_body, pack_body = msgspec.json.encode(value), msgspec.msgpack.encode(value)
    json_time = microseconds(lambda: msgspec.json.encode(value))
    json_time += microseconds(lambda: msgspec.json.decode(json_body))
    pack_time = microseconds(lambda: msgspec.msgpack.encode(value))
    pack_time += microseconds(lambda: msgspec.msgpack.decode(pack_body))
    return f"input of {len(json_body)} B", json_time, pack_time, len(json_body), len(pack_body)


def _packed(value: Envelope | Record) -> Envelope | Record:
    """Return the same with its input or result in msgpack."""
    field = "input" if isinstance(value, Envelope) else "result"
    inner = msgspec.json.decode(bytes(getattr(value, field)))
    return msgspec.structs.replace(value, **{field: Raw(msgspec.msgpack.encode(inner))})


def main() -> int:
    """Measure and print a table."""
    few = {"path": "input/hills.jpg", "edge": 160}
    many = {"rows": [{"id": number, "name": f"row {number}", "score": number / 7} for number in range(200)]}
    small, large = Raw(msgspec.json.encode(few)), Raw(msgspec.json.encode(many))
    ended = Record(
        State.DONE, 1, "images-1", "thumbnail", submitted_at=NOON, started_at=NOON, ended_at=NOON,
        outcome=Outcome.SUCCEEDED, result=Raw(b'{"size":[160,120],"bytes":2683}'),
    )  # fmt: skip
    rows = [
        measure("envelope, 37 B of input", Envelope("thumbnail", NOON, input=small)),
        measure(f"envelope, {len(large)} B of input", Envelope("thumbnail", NOON, input=large)),
        measure("envelope, third attempt", Envelope("thumbnail", NOON, input=small, history=PAST)),
        measure("record, succeeded", ended),
        measure_input(few),
        measure_input(many),
    ]
    print("| body | JSON us | msgpack us | difference us | share of a task | JSON B | msgpack B |")
    print("|---|---|---|---|---|---|---|")
    for name, json_time, pack_time, json_bytes, pack_bytes in rows:
        more = json_time - pack_time
        print(
            f"| {name} | {json_time:.2f} | {pack_time:.2f} | {more:+.2f} | {more / TASK_MICROSECONDS:+.1%} "
            f"| {json_bytes} | {pack_bytes} |"
        )
    more = sum(rows[index][1] - rows[index][2] for index in (0, 3, 4))
    print(
        f"\nA small task that succeeds at once, all in all: {more:+.2f} us, {more / TASK_MICROSECONDS:+.1%}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
