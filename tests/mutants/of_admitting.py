"""Mistakes in admitting Tasks, in their turns, and in following records."""

from typing import Final

from tests.mutants.mutant import Mutant

_UNIT: Final = "tests/unit/galley_operator/"
ADMISSION: Final = f"{_UNIT}intake/test_admission.py"
TURNS: Final = f"{_UNIT}intake/test_turns.py"
FOLLOW: Final = "tests/integration/galley/broker/test_follow.py"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = path.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{path}.py", old, new, breaks, tests, survives)


_INTAKE: Final = "operator/galley_operator/intake/"

ADMITTING: Final = (
    _of(
        f"{_INTAKE}admission",
        "an earlier Task's outcome is remembered as this one's",
        "return Claim.REMEMBERED if kept and not other_work else Claim.EARLIER",
        "return Claim.REMEMBERED if not other_work else Claim.EARLIER",
        "a Task that was deleted and applied again does not run",
        ADMISSION,
    ),
    _of(
        f"{_INTAKE}admission",
        "other work under the name is this Task's",
        "    if other_work:\n        return Claim.TAKEN\n",
        "",
        "a Task has the outcome of another's work",
        ADMISSION,
    ),
    _of(
        f"{_INTAKE}admission",
        "what ran before the Task was made is its own",
        "return Claim.REMEMBERED if ended_at is not None and ended_at < task.created else Claim.OURS",
        "return Claim.OURS",
        "a Task applied after its TTL shows an old outcome as new",
        ADMISSION,
    ),
    _of(
        f"{_INTAKE}admission",
        "a deadline that has come is ahead",
        "    if spec.deadline is None or spec.deadline > facts.now:\n",
        "    if spec.deadline is None or spec.deadline >= facts.now:\n",
        "a task is submitted whose time is over",
        ADMISSION,
    ),
    _of(
        f"{_INTAKE}admission",
        "an input of the limit is too large",
        "    if size <= INPUT_LIMIT:\n",
        "    if size < INPUT_LIMIT:\n",
        "the documented limit is not the limit",
        ADMISSION,
    ),
    _of(
        f"{_INTAKE}admission",
        "any lane is enabled",
        "    if queue is None or lane in queue.lanes:\n",
        "    if True:\n",
        "a Task waits forever in a lane that no worker serves",
        ADMISSION,
    ),
    _of(
        f"{_INTAKE}turns",
        "a refusal does not shut the gate",
        "            gate.refusal, gate.refused = report, True\n",
        "            gate.refused = True\n",
        "10,000 Tasks knock at a full queue one after the other",
        TURNS,
    ),
    _of(
        f"{_INTAKE}turns",
        "a Task behind a shut gate is told nothing",
        "            self._parked(task, refusal)\n",
        "",
        "Tasks of a full queue have no condition until it is their turn",
        TURNS,
    ),
    _of(
        f"{_INTAKE}turns",
        "those who wait for room get no turn",
        "            gate.allowance = 1 if gate.refused else min(gate.allowance * 4, _MOST_LET_THROUGH)\n",
        "            gate.allowance = 0 if gate.refused else min(gate.allowance * 4, _MOST_LET_THROUGH)\n",
        "Tasks that met a full queue stay pending",
        TURNS,
    ),
    _of(
        f"{_INTAKE}turns",
        "a Task that is gone waits on",
        "            gate.waiting[task.lane].pop(task.key, None)\n            gate.let_through.discard(task.key)\n",
        "            gate.let_through.discard(task.key)\n",
        "a deleted Task takes the turns of others",
        TURNS,
    ),
    _of(
        f"{_INTAKE}turns",
        "a changed queue wakes none",
        "        for key in self.gates.open(queue):\n            self._keys.add(key)\n",
        "        self.gates.open(queue)\n",
        "Tasks that waited for their queue stay pending",
        f"{_UNIT}test_data_path.py",
    ),
    _of(
        "sdk/galley/broker/follow",
        "a recreated stream is read from where the old one ended",
        "            self._position = 0\n        self.started",
        "            pass\n        self.started",
        "outcomes are not written after NATS lost its data",
        FOLLOW,
    ),
    _of(
        "sdk/galley/broker/follow",
        "a new consumer skips a record",
        "        await self._make_consumer(self._position + 1)\n",
        "        await self._make_consumer(self._position + 2)\n",
        "an outcome is not written after a reconnection",
        FOLLOW,
    ),
    _of(
        "sdk/galley/broker/follow",
        "a pull has no limit of bytes",
        "        most = max(BYTES_AT_ONCE, 2 * self._broker.nats.max_payload)\n",
        "        most = 2**40\n",
        "one worker's large records have the operator cut off",
        FOLLOW,
    ),
    _of(
        "sdk/galley/broker/follow",
        "a new consumer begins with the last record",
        "        await self._make_consumer(self._position + 1)\n",
        "        await self._make_consumer(max(1, self._position))\n",
        "a record is heard twice",
        FOLLOW,
    ),
)

MUTANTS: Final = ADMITTING
