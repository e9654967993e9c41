"""Mistakes in what clients say to NATS: publishing, cancelling, records, waiting, pulls, backlogs."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "sdk/galley/"
_UNIT: Final = "tests/unit/galley/broker/"
PUBLISH: Final = f"{_UNIT}test_publish.py"
CANCEL: Final = f"{_UNIT}test_cancel.py"
RECORDS: Final = f"{_UNIT}test_records.py"
SIGNALS: Final = f"{_UNIT}test_signals.py"
PULLER: Final = "tests/unit/galley_worker/test_puller.py"
ORDER: Final = "tests/unit/galley_worker/test_order_of_writes.py"
CLAIMS: Final = "tests/unit/galley_worker/test_claims.py"


def _of(module: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = module.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{_ROOM}{module}.py", old, new, breaks, tests, survives)


PUBLISH_: Final = (
    _of(
        "broker/publish",
        "a repeated publish is not flagged",
        "            flags = _FLAGGED\n",
        "            pass\n",
        "a task whose answer was lost runs twice",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "an id of one's own is not flagged",
        "        flags = _FLAGGED if chosen_id else FIRST\n",
        "        flags = FIRST\n",
        "submitting an id again runs it again",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "a flagged publish looks in its own lane only",
        "                    topology.EXPECTED_SUBJECT: topology.in_any_lane(address),\n",
        "",
        "one id is in two lanes",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "an unanswered publish is a receipt",
        "        while ack.unanswered or ack.code == NO_RESPONDERS:\n",
        "        if ack.unanswered:\n            return Receipt(address)\n"
        "        while ack.unanswered or ack.code == NO_RESPONDERS:\n",
        "a task that is not stored counts as submitted",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "a refusal is a receipt",
        "        raise await self._refused(address, ack)\n",
        "        return Receipt(address)\n",
        "a refused task counts as submitted",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "patience without end",
        "            if loop.time() >= give_up:\n                raise self",
        "            if False:\n                raise self",
        "a submit hangs for as long as the broker is away",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "no look for the queue",
        "                await self._check_lane(address)\n",
        "                pass\n",
        "a typo in the queue's name is called a broker that is away",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "full means broken",
        "        if ack.code == FULL:\n",
        "        if False:\n",
        "a full queue is not told apart",
        PUBLISH,
    ),
    _of(
        "broker/later",
        "a producer's schedule replaces another",
        '        headers[topology.EXPECTED_SEQUENCE] = "0"\n',
        "        pass\n",
        "a repeated submit postpones a task, or revives one that ran",
        PUBLISH,
    ),
    _of(
        "broker/pipeline",
        "publishes of a broken connection wait on",
        "        waiting, self._waiting = self._waiting, {}\n",
        "        waiting = {}\n",
        "each broken connection costs five seconds",
        PUBLISH,
        survives="the wait ends after REQUEST_SECONDS all the same, and the publish is repeated then",
    ),
)

CANCEL_: Final = (
    _of(
        "broker/cancel",
        "a cancel without an answer is done",
        "        if ack.stored:\n            break\n",
        "        if ack.stored or ack.unanswered:\n            break\n",
        "a task that goes on is reported as cancelled",
        CANCEL,
    ),
    _of(
        "broker/cancel",
        "a refused cancel is done",
        "        if ack.code != WRONG_SEQUENCE:\n            raise",
        "        if ack.code != WRONG_SEQUENCE:\n            break\n            raise",
        "a task that goes on is reported as cancelled",
        CANCEL,
    ),
    _of(
        "broker/cancel",
        "a cancel that races a claim gives up",
        "        at_least = ack.last_sequence\n",
        "        break\n",
        "a cancel that races a claim is not recorded",
        CANCEL,
    ),
    _of(
        "broker/cancel",
        "reads whatever record a replica has",
        "        at_least = ack.last_sequence\n",
        "        at_least = 0\n",
        "a cancel goes round in circles",
        CANCEL,
        survives="it asks until the replica has caught up, at the cost of refused writes",
    ),
    _of(
        "broker/cancel",
        "an ended task is cancelled",
        "        if stored is not None and stored.record.done:\n",
        "        if False:\n",
        "an outcome that was read is replaced",
        CANCEL,
    ),
    _of(
        "broker/cancel",
        "the claim stays in the record",
        "                claim=None,\n",
        "",
        "a cancelled record looks like a run",
        CANCEL,
    ),
    _of(
        "broker/cancel",
        "messages stay",
        "    await _purge(broker, address)\n",
        "    pass\n",
        "a cancelled task begins",
        CANCEL,
    ),
    _of(
        "broker/cancel",
        "schedules stay",
        "                (later, topology.again_subject(address)),\n",
        "",
        "a cancelled task comes back at its retry",
        CANCEL,
    ),
    _of(
        "broker/cancel",
        "what a dead canceller left is left",
        "            if stored.record.outcome is Outcome.CANCELLED:\n",
        "            if False:\n",
        "a cancelled task begins, or runs on",
        CANCEL,
    ),
    _of(
        "broker/cancel",
        "kept without end",
        "            keep_seconds,\n        )",
        "            None,\n        )",
        "records fill the disk",
        CANCEL,
    ),
)

RECORDS_: Final = (
    _of(
        "broker/records",
        "a listing ends after the first page",
        "            if found < _LISTED_AT_ONCE:\n                return\n",
        "            return\n",
        "tasks beyond the 256th are not listed",
        RECORDS,
    ),
    _of(
        "broker/records",
        "a page begins where the last one ended",
        '                sequence = int(headers["Nats-Sequence"]) + 1\n',
        '                sequence = int(headers["Nats-Sequence"])\n',
        "tasks are listed twice, or without end",
        RECORDS,
    ),
    _of(
        "broker/records",
        "an old answer is good enough",
        "            if stored.sequence >= at_least:\n",
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
        "broker/records",
        "no record and no stream are one",
        '                raise BrokerRefused(f"read from {stream}", NO_RESPONDERS, ',
        '                return None\n                raise BrokerRefused(f"read from {stream}", NO_RESPONDERS, ',
        "a namespace without a leader looks like one without tasks",
        RECORDS,
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
        "broker/waiting",
        "no look after a reconnection",
        "    forget = broker.on_reconnect(reconnected)\n",
        "    forget = lambda: None\n",
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
        "            if pull.ended is None and now - pull.heard > 2.5 * _HEARTBEAT_SECONDS:\n",
        "            if False:\n",
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
)

SDK: Final = (*PUBLISH_, *CANCEL_, *RECORDS_, *WAITING_, *PULL_, *SIGNALS_)
