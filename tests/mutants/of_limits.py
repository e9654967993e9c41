"""Mistakes in the limits of a whole queue: how many tasks run, how many start, and what workers are for."""

from typing import Final

from tests.mutants.mutant import Mutant

_WORKER: Final = "worker-image/galley_worker/queue_limit.py"
_SHARES: Final = "sdk/galley/queue_limit.py"
LIMIT: Final = "tests/unit/galley_worker/test_queue_limit.py"
DECIDE: Final = "tests/unit/galley_operator/autoscaler/test_decide.py"
CHILDREN: Final = "tests/unit/galley_operator/queues/test_children.py"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str) -> Mutant:
    return Mutant(f"queue limit: {name}", path, old, new, breaks, tests or (LIMIT,))


MUTANTS: Final = (
    _of(
        _SHARES,
        "permits of others are not counted",
        "    left = rules.permits - sum(share.permits for share in others.values())\n",
        "    left = rules.permits\n",
        "each worker runs as many as the whole queue may",
    ),
    _of(
        _SHARES,
        "a start does not fill the bucket",
        "    full_at = rate.taken(before.full_at, now, 1)\n",
        "    full_at = before.full_at\n",
        "the rate limits nothing",
    ),
    _of(
        _SHARES,
        "each one that is seen counts as silent",
        "now - since > self._lease)",
        "now - since >= 0)",
        "workers take each other's permits",
    ),
    _of(
        _SHARES,
        "no one counts as silent",
        "now - since > self._lease)",
        "now - since > 1e9)",
        "the permits of a dead worker are lost",
    ),
    _of(
        _WORKER,
        "permits are not confirmed",
        "        due = permits > 0 and began - self._confirmed_at >= self._pause / 2\n",
        "        due = False\n",
        "others take the permits of a worker that is alive",
    ),
    _of(
        _WORKER,
        "a worker without the broker runs on",
        '                self.lost("the permits of its queue could not be confirmed")\n',
        "                pass\n",
        "more tasks run than the queue allows",
    ),
    _of(
        _WORKER,
        "permits that were lost are lost again and again",
        "                self._permits, self._known = 0, None\n",
        "                self._known = None\n",
        "a worker whose broker is back stops what it has just begun",
    ),
    _of(
        _WORKER,
        "what is not used is kept from others",
        "        surplus = self._permits > wanted and (self._asked or not self.open())\n",
        "        surplus = False\n",
        "a worker that drains keeps permits until it ends",
    ),
    _of(
        _WORKER,
        "a worker pulls without permits",
        "            free = min(free, 0 if late else self._permits - self._slots.busy)\n",
        "            free = min(free, free)\n",
        "the limit limits nothing",
    ),
    _of(
        "operator/galley_operator/autoscaler/need.py",
        "workers for tasks that a limit holds back",
        "        if most is None or self.slots <= most:\n",
        "        if True:\n",
        "workers start that have nothing to do",
        DECIDE,
    ),
    _of(
        "operator/galley_operator/queues/children.py",
        "workers are not told the limits they keep",
        '_LIMITS_FOR_WORKERS = ("concurrency", "rate", "perKey")',
        "_LIMITS_FOR_WORKERS = ()",
        "limits of keys and queues hold nowhere on a cluster",
        CHILDREN,
    ),
)
