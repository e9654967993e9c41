"""Mistakes in workflows: what follows from the end of a step, joins, and how a workflow ends."""

from typing import Final

from tests.mutants.mutant import Mutant

_SDK: Final = "sdk/galley/"
_WORKER: Final = "worker-image/galley_worker/"
FLOWS: Final = "tests/unit/galley_worker/test_flows.py"
STATE: Final = "tests/unit/galley/test_workflow_state.py"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = "workflows" if path.endswith("galley_worker/flows") else path.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{path}.py", old, new, breaks, tests or (FLOWS,), survives)


MUTANTS: Final = (
    _of(
        "operator/galley_operator/workflows/keeper",
        "a workflow that cannot be cancelled ends the sweep",
        '    except GalleyError as error:\n        log.warning("workflow not cancelled"',
        '    except ZeroDivisionError as error:\n        log.warning("workflow not cancelled"',
        "one workflow keeps all others whose objects are gone running",
        "tests/unit/galley_operator/workflows/test_workflow_keeper.py",
    ),
    _of(
        f"{_WORKER}flows",
        "a step begins though its workflow has ended",
        "        if root.ended is not None:\n            return Failure(ENDED",
        "        if False:\n            return Failure(ENDED",
        "steps run after the workflow was cancelled",
    ),
    _of(
        f"{_WORKER}flows",
        "a failure stops nothing",
        "        if mark in {Mark.FAILED, Mark.CANCELLED} and root.on_failure is OnFailure.STOP:\n            await self._mark(place, root, {number: mark})\n",
        "        if False:\n",
        "steps after a failed one are marked as skipped, and the others run",
    ),
    _of(
        f"{_WORKER}flows",
        "a cancelled member stops nothing",
        "        if mark in {Mark.FAILED, Mark.CANCELLED} and root.on_failure is OnFailure.STOP:\n            await self._mark(place, root, {number: mark})\n",
        "        if mark is Mark.FAILED and root.on_failure is OnFailure.STOP:\n",
        "a workflow goes on though its member was cancelled by hand",
    ),
    _of(
        f"{_WORKER}flows",
        "the last mark is written before what follows",
        "        if mark is not Mark.SUCCEEDED or not (tasks := await self._following_tasks(place, root, node)):\n",
        "        tasks = await self._following_tasks(place, root, node)\n        if mark is not Mark.SUCCEEDED:\n",
        "a worker that dies between the two ends the workflow before its join has fired",
    ),
    _of(
        f"{_WORKER}flows",
        "a step runs in place whether or not its workflow has ended",
        "            return onward if await self._still_open(place, root, number, mark) else None\n",
        "            await self._still_open(place, root, number, mark)\n            return onward\n",
        "steps of a chain begin after its cancellation has returned",
    ),
    _of(
        f"{_WORKER}settle",
        "a worker whose lease has ended does what follows a step that it finds ended",
        "        if writer is None and is_step(delivery.address.id) and self.fenced(delivery):\n",
        "        if False:\n",
        "it publishes the step that runs in place elsewhere, and acknowledges the message of that",
    ),
    _of(
        f"{_WORKER}settle",
        "the message goes while the next step runs in place",
        "            writer.onward = onward\n            return\n",
        "            writer.onward = onward\n",
        "a worker that dies in the midst of a chain leaves nothing that goes on",
    ),
    _of(
        f"{_WORKER}flows",
        "a join fires before all have arrived",
        "        if None in slots:\n            return None\n",
        "",
        "a join runs with results missing, and once for each source",
    ),
    _of(
        f"{_WORKER}flows",
        "the failure of a source is passed over",
        "            if failed is not None:\n                return Came(number, Slot(failed=failed))\n",
        "",
        "a join runs though a step before it failed",
    ),
    _of(
        f"{_WORKER}flows",
        "what depends on a failed step runs",
        "        if source.failed is not None:\n",
        "        if False:\n",
        "a step runs without the result it depends on",
    ),
    _of(
        f"{_WORKER}flows",
        "what succeeded before runs again",
        "        if node.given:\n",
        "        if False:\n",
        "a redrive runs steps that had succeeded",
    ),
    _of(
        f"{_WORKER}flows",
        "steps are not flagged as chosen ids",
        '                lambda: self._publisher.publish(address, task, chosen_id=True), f"publish {address}"\n',
        '                lambda: self._publisher.publish(address, task), f"publish {address}"\n',
        "a step that is published twice runs twice",
        survives="a step claims its record before it runs, whether or not it is flagged",
    ),
    _of(
        f"{_WORKER}flows",
        "the end is decided twice",
        "            if stored is not None and stored.record.outcome is not None:\n                outcome = stored.record.outcome\n",
        "",
        "the root says another outcome than the record",
    ),
    _of(
        f"{_WORKER}flows",
        "nothing is stopped at the end",
        "        else:\n            self._stop(place, root)\n",
        "",
        "what runs of a failed workflow runs on",
        FLOWS,
    ),
    _of(
        f"{_WORKER}flows",
        "parts of a failed workflow are forgotten",
        "        if outcome is Outcome.SUCCEEDED:\n            await self._forget(place)\n",
        "        if True:\n            await self._forget(place)\n",
        "a failed workflow cannot be redriven",
    ),
    _of(
        f"{_WORKER}flows",
        "a complete workflow with a failure succeeds",
        "        if bad is not None:\n            node = await self._node(place, root, bad)\n",
        "        if False:\n            node = await self._node(place, root, bad)\n",
        "a workflow that goes on after failures ends as succeeded",
    ),
    _of(
        f"{_WORKER}flows",
        "failures of members are not collected",
        "    if node.tolerated:\n        return slot, Mark.COLLECTED\n",
        "",
        "a failed member of a group fails a workflow that collects",
    ),
    _of(
        f"{_WORKER}flows",
        "a step that cannot be made blocks the workflow",
        "            return await self._never_ran(place, root, address, number, node, failure, marks)\n",
        "            return None\n",
        "the workflow waits for a step that is nowhere",
    ),
    _of(
        f"{_SDK}workflow/state",
        "a second mark takes the place of the first",
        "    if marks[number] != Mark.WAITING:\n        return marks\n",
        "",
        "a repeated message changes how a step ended",
        STATE,
    ),
    _of(
        f"{_SDK}workflow/state",
        "a second arrival takes the place of the first",
        "    if slots[number] is not None:\n        return slots\n",
        "",
        "the same join hands on two values",
        STATE,
    ),
    _of(
        f"{_SDK}workflow/state",
        "a second end takes the place of the first",
        "    return root if root.ended is not None else replace(root, ended=outcome, ended_at=at, failed=failed)\n",
        "    return replace(root, ended=outcome, ended_at=at, failed=failed)\n",
        "the root of a cancelled workflow says that it failed",
        STATE,
    ),
    _of(
        f"{_SDK}broker/flows",
        "a join of a workflow that succeeded is written again",
        "        if found is None or _root_in(found[0], place.flow).ended is Outcome.SUCCEEDED:\n            raise FlowGone\n\n    async def _slots",
        "\n    async def _slots",
        "a join fires again if two workers come too late",
    ),
    _of(
        f"{_SDK}broker/flow_values",
        "a lost race counts as stored",
        "            if ack.code == WRONG_SEQUENCE:\n                at_least = ack.last_sequence\n                continue\n",
        "            if ack.code == WRONG_SEQUENCE:\n                return new\n",
        "arrivals at a join get lost, and it never fires",
    ),
    _of(
        f"{_SDK}broker/flow_values",
        "states are written without a fence",
        "topology.TTL: str(keep_seconds)})\n            ack = await",
        "topology.TTL: str(keep_seconds)}).replace(str(fence).encode(), b'')\n            ack = await",
        "one worker's arrival overwrites another's",
    ),
    _of(
        f"{_SDK}broker/flow_values",
        "those who waited for a write that failed believe it",
        "                    _tell(some, None)\n                    raise\n",
        "                    _tell(some, [])\n                    raise\n",
        "a change that was not stored counts as stored",
    ),
    _of(
        f"{_SDK}broker/flow_values",
        "changes that wait are left out of the write",
        "                    changes = [change, *(each for each, _ in some)]\n",
        "                    changes = [change]\n",
        "arrivals of one worker get lost",
    ),
    _of(
        f"{_WORKER}attempts",
        "a task that was cut off after its workflow counts as cancelled",
        "        if isinstance(present.stopped, CutOff):  # the",
        "        if False:  # the",
        "a drain or a lost lease cancels a task that waits, and its workflow",
    ),
)
