"""Mistakes in scaling: which workers go, and how many there are."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "operator/galley_operator/"
_UNIT: Final = "tests/unit/galley_operator/"
FLEET: Final = f"{_UNIT}fleet/test_deployment_fleet.py"
PODS: Final = f"{_UNIT}fleet/test_pods.py"
DECIDE: Final = f"{_UNIT}autoscaler"


def _of(module: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = module.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{_ROOM}{module}.py", old, new, breaks, tests, survives)


FLEET_: Final = (
    _of(
        "fleet/deployment_fleet",
        "no precondition",
        "        if precondition:\n",
        "        if False:\n",
        "another client's change of the number is undone, and others go than those drained",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "a silent worker is believed",
        "        fresh = heard is not None and now - heard.at <= SILENT_SECONDS\n",
        "        fresh = heard is not None\n",
        "a worker that runs a task goes",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "any worker may go",
        "    candidates = [view for view in look.views if removable(view)]\n",
        "    candidates = list(look.views)\n",
        "a worker that runs a task goes",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "fewer than asked for go",
        "        if not look.deployment.settled or len(going) < surplus:\n",
        "        if not look.deployment.settled:\n",
        "a worker that runs a task goes",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "goes in the midst of a rollout",
        "        if not look.deployment.settled or len(going) < surplus:\n",
        "        if len(going) < surplus:\n",
        "the wrong ReplicaSet shrinks",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "no second look",
        "        look = self._look()\n        pods = {",
        "        pods = {",
        "a worker that took a task meanwhile goes",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "no pause between cost and number",
        "        await asyncio.sleep(SETTLE_SECONDS)\n",
        "        await asyncio.sleep(0)\n",
        "the number arrives before the cost, and others go",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "no look at who would go",
        " or not would_go_first(chosen, staying, self._leaving):\n",
        ":\n",
        "a worker that is not ready stays in the way, and another goes",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "who went meanwhile counts",
        "        if not complete or not look",
        "        if not look",
        "one more goes than was asked for",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "the number before the cost",
        "        await self._lower_cost(look, going)\n",
        "",
        "others go than those drained",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "costs are never taken back",
        "            elif pod.name not in going and pod.cost == LEAVING_COST:\n",
        "            elif False:\n",
        "one that came back goes first the next time",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "the old first",
        "-view.since.timestamp())",
        "view.since.timestamp())",
        "warm workers go",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "the drained before the failed",
        "view.phase is not WorkerPhase.FAILED, -view",
        "view.phase is WorkerPhase.FAILED, -view",
        "a good worker goes and a broken one stays",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "scales what it is",
        "            if workers == present == look.deployment.spec.replicas:\n",
        "            if False:\n",
        "the API server is written to once a second",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "forgets what it just wrote",
        "        self._applied = msgspec.convert(applied, Deployment)\n",
        "",
        "scales twice",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "an earlier life is believed",
        "        beat = heard.beat if heard is not None and heard.life == life else None\n",
        "        beat = heard.beat if heard is not None else None\n",
        "a worker that crashed counts as ready",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "starts forever",
        "        failed = trouble is not None or now - self._missing_since > STUCK_SECONDS\n",
        "        failed = trouble is not None\n",
        "a quota keeps the rest from scaling in",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "no worker is ever stuck",
        " > STUCK_SECONDS\n        phase = phase_of",
        " > 1e9\n        phase = phase_of",
        "a worker that does not come up keeps the others from going",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "those on their way out are present",
        "        leaving = {pod.name for pod in active[: max(0, surplus)]}\n",
        "        leaving = set()\n",
        "workers that end count as capacity",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "a conflict is the number",
        '            raise FleetUnknown(self._queue, "the Deployment changed at the same moment") from error\n',
        "            return\n",
        "a scale-in that did not happen counts",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "two scale at once",
        "        async with self._writing:\n",
        "        if True:\n",
        "two scale-ins take more than either",
        FLEET,
    ),
    _of(
        "fleet/deployment_fleet",
        "all drain",
        "        if names:\n",
        "        if True:\n",
        "a request that names no worker is sent each second",
        FLEET,
        survives="a request that names no worker is one that no worker answers",
    ),
    _of(
        "fleet/fleet",
        "a busy drained worker may go",
        "    drained = worker.phase is WorkerPhase.DRAINING and worker.busy == 0\n",
        "    drained = worker.phase is WorkerPhase.DRAINING\n",
        "a task is cut off",
        FLEET,
    ),
    _of(
        "fleet/fleet",
        "an idle worker may go",
        "    drained = worker.phase is WorkerPhase.DRAINING and worker.busy == 0\n",
        "    drained = worker.busy == 0\n",
        "a worker goes that takes a task just then",
        FLEET,
    ),
    _of(
        "fleet/pods",
        "ready ones go before others",
        "    return bool(pod.spec.node_name), pending, pod.ready, cost\n",
        "    return bool(pod.spec.node_name), pending, cost, pod.ready\n",
        "others go than those drained",
        PODS,
        FLEET,
    ),
)

DECIDE_: Final = (
    _of(
        "autoscaler/decide",
        "what is not known is nothing",
        "    if signals.missing is not None:\n",
        "    if False:\n",
        "all workers go when the broker is away",
        DECIDE,
    ),
    _of(
        "autoscaler/decide",
        "goes at once",
        "    leaving += sorted(staying, key=_worth, reverse=True)[:surplus]\n",
        "    leaving += sorted(staying, key=_worth)[:surplus]\n",
        "the busiest are drained",
        DECIDE,
    ),
    _of(
        "autoscaler/decide",
        "goes while others come up",
        "    quiet = not back and not restless\n",
        "    quiet = not back\n",
        "the fleet takes one that starts",
        DECIDE,
    ),
    _of(
        "autoscaler/decide",
        "drains are not renewed",
        "    return not 0 <= (now - last).total_seconds() < RENEW_SECONDS\n",
        "    return False\n",
        "a drained worker goes back to work before it can go",
        DECIDE,
    ),
    _of(
        "autoscaler/decide",
        "who was not asked may go",
        "(worker.phase is WorkerPhase.FAILED or worker.name in memory.asked)",
        "True",
        "a worker that drains for another reason goes",
        DECIDE,
    ),
    _of(
        "autoscaler/decide",
        "no window of idleness",
        "    memory = memory.needing(desired, now, patience)\n",
        "    memory = memory.needing(desired, now, 0.0)\n",
        "workers come and go with each task",
        DECIDE,
    ),
)

MUTANTS: Final = (*FLEET_, *DECIDE_)
