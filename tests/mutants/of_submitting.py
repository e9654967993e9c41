"""Mistakes in publishing and cancelling."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "sdk/galley/"
_UNIT: Final = "tests/unit/galley/broker/"
PUBLISH: Final = f"{_UNIT}test_publish.py"
CANCEL: Final = f"{_UNIT}test_cancel.py"


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
        "        raise await self.refusals.error(address, ack)\n",
        "        return Receipt(address)\n",
        "a refused task counts as submitted",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "patience without end",
        "            if loop.time() >= give_up:\n                raise self._given_up(address, ack)\n            await asyncio.sleep(0.2)\n",
        "            await asyncio.sleep(0.2)\n",
        "a submit hangs for as long as the broker is away",
        PUBLISH,
    ),
    _of(
        "broker/publish",
        "no look for the queue",
        "is not answered either.\n                with contextlib.suppress(BrokerUnreachable):\n                    await self.refusals.check_lane(address)\n",
        "is not answered either.\n                pass\n",
        "a typo in the queue's name is called a broker that is away",
        PUBLISH,
    ),
    _of(
        "broker/refusals",
        "full means broken",
        "    if ack.code == FULL:\n",
        "    if False:\n",
        "a full queue is not told apart",
        PUBLISH,
    ),
    _of(
        "broker/later",
        "a producer's schedule replaces another",
        '        headers[topology.EXPECTED_SEQUENCE] = "0"\n',
        "        pass\n",
        "a repeated submit postpones a task, or revives one that ran",
        "tests/unit/galley_worker/test_planner.py",
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

MUTANTS: Final = (*PUBLISH_, *CANCEL_)
