"""Mistakes in records, waiting, pulls and backlogs."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "sdk/galley/"
_UNIT: Final = "tests/unit/galley/broker/"
RECORDS: Final = f"{_UNIT}test_records.py"
REQUESTS: Final = f"{_UNIT}test_cancelled_requests.py"
LAST: Final = f"{_UNIT}test_last_message.py"
SIGNALS: Final = f"{_UNIT}test_signals.py"
MARK: Final = f"{_UNIT}test_mark.py"
PULLER: Final = "tests/unit/galley_worker/test_puller.py"
ORDER: Final = "tests/unit/galley_worker/test_order_of_writes.py"
CLAIMS: Final = "tests/unit/galley_worker/test_claims.py"


def _of(module: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = module.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{_ROOM}{module}.py", old, new, breaks, tests, survives)


RECORDS_: Final = (
    _of(
        "broker/connection",
        "a cancellation that comes with an answer is lost",
        "                    raise_if_cancelled(since=cancelled)\n",
        "",
        "what is to end hangs at its end",
        REQUESTS,
    ),
    _of(
        "broker/cancellation",
        "a cancellation that comes with one of many answers is lost",
        "    raise_if_cancelled(since=cancelled)\n    return message\n",
        "    return message\n",
        "Ctrl-C during a long list goes unheard",
        REQUESTS,
    ),
    _of(
        "broker/connection",
        "a cancellation that comes with a failed try to connect is lost",
        "                raise_if_cancelled(since=cancelled)\n\n        # All who",
        "                pass\n\n        # All who",
        "a client tries to connect for as long as its process lives, whatever its limit",
        REQUESTS,
    ),
    _of(
        "broker/cancellation",
        "a cancellation of long ago ends a request",
        "    if cancellations() > since:\n",
        "    if cancellations() > 0:\n",
        "a part of the operator, or a user's program, ends silently after a task group that failed",
        REQUESTS,
    ),
    _of(
        "broker/listing",
        "a listing ends after the first page",
        "        if not found or left <= 0:\n            return\n",
        "        return\n",
        "tasks beyond the 256th are not listed",
        RECORDS,
    ),
    _of(
        "broker/listing",
        "a page begins where the last one ended",
        '        request["seq"] = sequence + 1\n',
        '        request["seq"] = sequence\n',
        "tasks are listed twice, or without end",
        RECORDS,
    ),
    _of(
        "broker/records",
        "an old answer is good enough",
        "            if found.sequence >= at_least:\n",
        "            if True:\n",
        "an old record decides",
        RECORDS,
        CLAIMS,
    ),
    _of(
        "broker/records",
        "an old answer is none",
        '        raise BrokerUnreachable(self._broker.server, f"only stale records of {address} to be had")\n',
        "        return stored\n",
        "an old record decides",
        RECORDS,
    ),
    _of(
        "broker/last_message",
        "no message and no stream are one",
        "    if answer is None:\n        raise",
        "    if answer is None:\n        return None\n        raise",
        "objects of a dead letter are deleted while its stream has no leader",
        LAST,
    ),
    _of(
        "broker/last_message",
        "an error is no message",
        "    if status is not None:\n",
        "    if status is not None:\n        return None\n",
        "what could not be read counts as absent",
        LAST,
    ),
    _of(
        "broker/last_message",
        "the fallback is asked for what is absent",
        "    if answer is None and fallback:\n",
        '    if (answer is None or "Status" in (answer.headers or {})) and fallback:\n',
        "the record of a queue made again is that of the one before",
        LAST,
    ),
    _of(
        "broker/notes",
        "a stream that is away has no checkpoint",
        "        if refusal.code == NO_RESPONDERS and what != CHECKPOINT:\n",
        "        if refusal.code == NO_RESPONDERS:\n",
        "an attempt begins at the start again, with no word",
        LAST,
    ),
    _of(
        "broker/records",
        "writes are not fenced",
        "    headers = {topology.EXPECTED_SEQUENCE: str(fence)}\n",
        "    headers = {}\n",
        "a late worker replaces an outcome",
        ORDER,
        CLAIMS,
    ),
)

WAITING_: Final = (
    _of(
        "broker/waiting",
        "news during a look are missed",
        "            changed.clear()\n            broker.check",
        "            broker.check",
        "a waiter asks thousands of times a second",
        RECORDS,
    ),
    _of(
        "broker/waiting",
        "any record is the end",
        "            if stored is not None and stored.record.done:\n",
        "            if stored is not None:\n",
        "a running task has a result",
        RECORDS,
    ),
    _of(
        "broker/news",
        "no look after a reconnection",
        "[self._broker.on_reconnect(self._reconnected), self._broker.on_close(self._wake)]",
        "[self._broker.on_close(self._wake)]",
        "an end that came meanwhile is heard half a minute late",
        RECORDS,
    ),
    _of(
        "broker/waiting",
        "news are believed in alone",
        "                async with asyncio.timeout(_LOOK_AGAIN_SECONDS):\n",
        "                async with asyncio.timeout(None):\n",
        "a lost message keeps a waiter forever",
        RECORDS,
    ),
)

PULL_: Final = (
    _of(
        "broker/pull",
        "nothing is old",
        "                self._old_until is None or (source.stream == self._work and sequence <= self._old_until),\n",
        "                False,\n",
        "a killed broker runs tasks twice",
        PULLER,
    ),
    _of(
        "broker/mark",
        "a mark counts in every life",
        "if life and marked == life and sequence.isdigit()",
        "if sequence.isdigit()",
        "tasks of before a killed broker run twice",
        MARK,
    ),
    _of(
        "broker/pull",
        "an answer of any life is taken",
        "            if life == self._broker.nats.life:\n",
        "            if True:\n",
        "tasks of before a killed broker run twice",
        MARK,
    ),
    _of(
        "broker/ensure",
        "a consumer is made under its mark",
        "        await remove_mark(broker, stream)\n",
        "",
        "tasks that a new consumer counts from one run twice",
        MARK,
    ),
    _of(
        "broker/pull",
        "what was old stays so",
        "        self._oriented_on = 0\n        self.heard_at",
        "        self.heard_at",
        "tasks of between two connections are begun unclaimed",
        PULLER,
        survives="each connection has another number, so it is oriented again all the same",
    ),
    _of(
        "broker/pull",
        "deliveries of a lost connection stay",
        "        self._forget_pulls()\n        self._listener.reconnected()\n",
        "        self._forget_pulls()\n",
        "a task runs twice after a reconnection",
        PULLER,
    ),
    _of(
        "broker/pull",
        "pulls of a lost connection stay",
        "        self._forget_pulls()\n        self._listener.reconnected()\n",
        "        self._listener.reconnected()\n",
        "a worker waits on pulls without an answer",
        PULLER,
    ),
    _of(
        "broker/pull",
        "no pull is ever lost",
        "                self._close(source)\n                self._listener.changed()\n            else:\n",
        "            else:\n",
        "a worker waits on a dead server's pull",
        PULLER,
    ),
    _of(
        "broker/pull",
        "a filled pull wakes nothing",
        "        if filled:\n",
        "        if False:\n",
        "free slots stay idle",
        PULLER,
    ),
    _of(
        "broker/pull",
        "an expired pull wakes nothing",
        "        if parked:\n            self._listener.changed()\n",
        "        if parked:\n            pass\n",
        "free slots stay idle",
        PULLER,
    ),
    _of(
        "broker/pull",
        "a sweep waits for its answer without end",
        "        timer = loop.call_later(_SWEEP_SECONDS, self._give_up, source, ended)\n",
        "        timer = loop.call_later(86_400, self._give_up, source, ended)\n",
        "a lost answer stops a worker",
        PULLER,
    ),
)

SIGNALS_: Final = (
    _of(
        "broker/signals",
        "a count is believed at once",
        "        return self.empty and self.settled and",
        "        return self.empty and",
        "a task that was not counted yet waits until the next one comes",
        SIGNALS,
    ),
    _of(
        "broker/signals",
        "the lanes of empty streams are not asked",
        "        self._take_as_empty((*(later for later, _ in pairs), *beside), rung)\n",
        "        self._take_as_empty(sources, rung)\n",
        "a queue that is paused while it is empty looks open",
        "tests/integration/galley/broker/test_signals.py",
    ),
)

MUTANTS: Final = (*RECORDS_, *WAITING_, *PULL_, *SIGNALS_)
