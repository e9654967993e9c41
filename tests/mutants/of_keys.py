"""Mistakes in keys: which tasks of a key run, how many, how fast, and what has it looked at again."""

from typing import Final

from tests.mutants.mutant import Mutant

_TURNS: Final = "worker-image/galley_worker/turns"
_TASKS: Final = "worker-image/galley_worker/keyed_tasks"
TURNS: Final = "tests/unit/galley_worker/test_turns.py"
KEY: Final = "tests/unit/galley/test_key.py"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str) -> Mutant:
    short = path.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{path}.py", old, new, breaks, tests or (TURNS,))


MUTANTS: Final = (
    _of(
        "sdk/galley/declared",
        "a key of the input is taken as it is written",
        "        key=input_key(spec),\n",
        "        key=spec.key,\n",
        "all tasks that take their keys from their input have one key",
        "tests/unit/galley/test_declared.py",
    ),
    _of(
        "operator/galley_operator/intake/admission",
        "a key that the input does not have is found while the task is stored",
        "        input_key(spec)\n",
        "",
        "the Task is no more rejected, and the operator fails on it again and again",
        "tests/unit/galley_operator/intake/test_admission.py",
    ),
    _of(
        _TURNS,
        "weights of keys count for nothing",
        "        moved, most = 0, QUANTUM * self.rules.weights.get(digest, 1)\n",
        "        moved, most = 0, QUANTUM\n",
        "a key has no more than others, whatever its weight",
    ),
    _of(
        _TURNS,
        "no look is planned while tasks wait",
        "        await self._tasks.arm(self._tasks.turn(digest, lane), seconds)\n",
        "        pass\n",
        "a permit lost with its worker, or a rate, stops the key",
    ),
    _of(
        _TURNS,
        "a key that looks empty is not looked at again",
        "            if found is Found.EMPTY and not fired:\n",
        "            if False:\n",
        "a task whose producer rang while the turn was there waits without end",
    ),
    _of(
        _TURNS,
        "a start is not taken from the rate",
        "            permits = replace(permits, full_at=full_at)\n",
        "            permits = replace(permits, full_at=0.0)\n",
        "the rate limits nothing",
    ),
    _of(
        _TURNS,
        "more are moved than the rate allows",
        "min(most - moved, ready)",
        "most - moved",
        "more tasks start at once than the burst",
    ),
    _of(
        _TURNS,
        "more are moved than there are permits",
        "            most = min(most, self.rules.permits - len(held))\n",
        "",
        "more tasks of a key run at once than its queue allows",
    ),
    _of(
        _TURNS,
        "a task without a permit runs",
        "        if not flags.permit:\n            return False\n",
        "        if not flags.permit:\n            return True\n",
        "retries and steps of workflows pass the limit of their key",
    ),
    _of(
        _TURNS,
        "a lower lane has no share of what its key may start",
        "                shares.started(lane, lanes)\n",
        "                pass\n",
        "tasks of a higher lane take every permit of a key",
    ),
    _of(
        _TURNS,
        "a turn under a limit looks at its own lane alone",
        "self._tasks.lanes if self.rules.limited else (turn.lane,)",
        "(turn.lane,)",
        "the turn of a higher lane takes every start that the rate allows",
    ),
    _of(
        _TURNS,
        "a permit is not given back",
        "held = tuple(each for each in permits.held if each != leaving)",
        "held = permits.held",
        "the next task of the key waits for the look after a lease",
    ),
    _of(
        _TURNS,
        "permits of tasks that are gone are kept",
        "strict=True) if there is not None)",
        "strict=True))",
        "a permit lost with its worker stops the key",
    ),
    _of(
        _TURNS,
        "a task with a permit that waits behind others is not moved",
        "                await self._tasks.move(waiting, permit=True)\n",
        "                pass\n",
        "a worker that dies after its task failed stops the key",
    ),
    _of(
        _TURNS,
        "a turn goes on without end",
        "        while moved < most:\n",
        "        while True:\n",
        "one tenant's million tasks come before another's single one",
    ),
    _of(
        _TASKS,
        "a moved task has no permit",
        "permit=permit)",
        "permit=False)",
        "a moved task is parked again, and again",
    ),
    _of(
        _TASKS,
        "a task is removed from where it waits but not moved",
        "            await self._ledger.admit(waiting.address, waiting.body, flags)\n",
        "            pass\n",
        "an accepted task is lost",
    ),
    _of(
        "sdk/galley/key",
        "a bucket holds one start more",
        "int(self.burst - missing + _ROUNDING)",
        "int(self.burst - missing + 1)",
        "more tasks start at once than the burst",
        KEY,
    ),
    _of(
        "sdk/galley/key",
        "a bucket fills while it is full",
        "return max(full_at, now) + starts * self._each",
        "return full_at + starts * self._each",
        "after a pause any number may start",
        KEY,
    ),
)
