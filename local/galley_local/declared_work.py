"""What manifests declare beside queues and topics: tasks, workflows and schedules, submitted and kept."""

import asyncio
from typing import Final

from galley.broker.connection import Broker
from galley.broker.schedules import remove
from galley.client import AsyncClient
from galley.declared import submit_declared
from galley.errors import TaskConflict
from galley.resources import Task, TaskSchedule, Workflow
from galley.schedule_manifest import apply_schedule
from galley.workflow.errors import WorkflowConflict
from galley.workflow.state import outcome_address
from galley.workflow_manifest import apply_workflow
from galley_local.board import TaskBoard
from galley_local.display import Display
from galley_local.errors import FilesUnusable
from galley_local.plan import Plan

_SUBMITTED_AT_ONCE: Final = 64


class DeclaredWork:
    """Submits the tasks and workflows of a plan, and keeps its schedules."""

    def __init__(self, plan: Plan, broker: Broker, board: TaskBoard, display: Display) -> None:
        self._plan, self._broker, self._board, self._display = plan, broker, board, display

    async def submit(self) -> None:
        """Submit the tasks of the plan; those of an earlier run continue.

        Raises:
            FilesUnusable: if an earlier run had another task of that name.
            Refused, BrokerError: if one is not accepted.
        """
        room = asyncio.Semaphore(_SUBMITTED_AT_ONCE)

        async def submit(task: Task) -> bool:
            async with room:
                try:
                    submitted = await submit_declared(self._broker, task)
                except TaskConflict as conflict:
                    raise FilesUnusable(
                        str(conflict), "give the task another name, or forget earlier runs: --fresh"
                    ) from conflict
            self._board.declare(submitted.address)
            return submitted.created

        created = await asyncio.gather(*(submit(task) for task in self._plan.tasks))
        begun = [await self._submit_workflow(each) for each in self._plan.workflows]
        await self.keep_schedules(self._plan.schedules)
        if new := sum(created):
            self._display.say(f"{new} task{'s' if new > 1 else ''} submitted")
        if more := sum(begun):
            self._display.say(f"{more} workflow{'s' if more > 1 else ''} submitted")
        if old := len(created) + len(begun) - new - more:
            self._display.say(f"{old} unchanged since an earlier run (--fresh deletes those)")

    async def _submit_workflow(self, manifest: Workflow) -> bool:
        """Submit a workflow of the plan, and return whether no earlier run had it.

        Raises:
            FilesUnusable: if an earlier run had another one of that name.
            Refused, BrokerError: if it is not accepted.
        """
        client = AsyncClient.over(self._broker, manifest.metadata.namespace)
        try:
            workflow = await apply_workflow(client, manifest)
        except WorkflowConflict as conflict:
            raise FilesUnusable(
                str(conflict), "give the workflow another name, or forget earlier runs: --fresh"
            ) from conflict
        self._board.declare(outcome_address(client.namespace, workflow.queue, workflow.id))
        return not workflow.existed

    async def keep_schedules(self, wanted: list[TaskSchedule]) -> None:
        """Make the schedules of the manifests, and remove those that were in them before."""
        left = {(each.metadata.namespace, each.spec.queue_name, each.metadata.name) for each in wanted}
        for schedule in wanted:
            client = AsyncClient.over(self._broker, schedule.metadata.namespace)
            if await apply_schedule(client, schedule):
                self._display.say(f"schedule {schedule.metadata.name} configured")
        for schedule in self._plan.schedules:
            namespace, queue, name = (
                schedule.metadata.namespace, schedule.spec.queue_name, schedule.metadata.name,
            )  # fmt: skip
            if (namespace, queue, name) not in left:
                await remove(self._broker, namespace, queue, name)
                self._display.say(f"schedule {name} removed")
        self._plan.schedules = wanted
