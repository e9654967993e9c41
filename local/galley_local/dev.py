"""`galley dev`: queues, workers and autoscaler on this machine, from start to drain."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from galley.broker.connection import Broker
from galley.broker.object_collector import ObjectCollector
from galley.broker.pause import is_paused
from galley.broker.signals import SignalReader
from galley.broker.topic_keeper import Declared
from galley.cli.exit_code import ExitCode
from galley.cli.terminal import Terminal
from galley.encryption.given import payloads_with
from galley.error_group import ungrouped
from galley.errors import GalleyError
from galley.faults import Faults
from galley.logs import log_as_json
from galley.resources.topic import declared_topic
from galley.target import NAMESPACE_VARIABLE, SERVER_VARIABLE
from galley.task_status import Phase
from galley_local.board import TaskBoard
from galley_local.code_watch import CodeWatch
from galley_local.declared_work import DeclaredWork
from galley_local.display import Display, display_for
from galley_local.errors import WorkersDoNotStart
from galley_local.http import served
from galley_local.nats_server import STORE_BYTES, NatsServer
from galley_local.plan import LocalQueue, Plan, read_plan
from galley_local.project import Project
from galley_local.queue_keys import as_setting, keys_of, signing_keys_of
from galley_local.queue_runtime import INSTALL, QueueRuntime, gone
from galley_local.results import print_moves, print_results
from galley_local.server_watch import ServerWatch
from galley_local.snapshot import Snapshot, of_queue
from galley_local.stop import Stop, stopping
from galley_local.topics import LocalTopics
from galley_local.warm_start import WarmStarter

log = logging.getLogger(__name__)

SHOW_SECONDS: Final = 0.25

_NAMED_TASKS: Final = 3


@dataclass(frozen=True)
class DevOptions:
    """The options of `galley dev`."""

    files: tuple[Path, ...]
    until_done: bool = False
    port: int | None = None
    fresh: bool = False
    keys: tuple[str, ...] = ()
    """Keys of encrypted queues: `PATH` or `QUEUE=PATH`."""
    http_port: int | None = None
    """Port of the HTTP API and the dashboard; None means a free one."""
    reload: bool = True
    """Whether changed code and manifests are taken over."""


async def dev(options: DevOptions, terminal: Terminal) -> int:
    """Run until Ctrl-C, or until the tasks of the files have ended; returns the exit code.

    Raises:
        GalleyError: if it cannot start or continue.
    """
    plan = await read_plan(options.files, terminal.folder)
    plan.keys = keys_of(plan, options.keys, terminal.environ, terminal.folder)
    with Project(terminal.folder) as project:
        if options.fresh:
            project.forget()
        plan.signing_keys = signing_keys_of(plan, terminal.environ, project)
        with (project.logs / "dev.log").open("w") as log:
            log_as_json("INFO", log)
            return await _serve(options, plan, project, terminal)


async def _serve(options: DevOptions, plan: Plan, project: Project, terminal: Terminal) -> int:
    began = terminal.now()
    async with AsyncExitStack() as parts:
        starter = parts.enter_context(WarmStarter())  # imports while the server starts
        server = await parts.enter_async_context(
            NatsServer(project.nats, port=options.port, max_store_bytes=STORE_BYTES)
        )
        broker = await parts.enter_async_context(
            Broker(server.url, name="galley dev", payloads=payloads_with(plan.keys))
        )
        project.declare(queue.declared for queue in plan.queues.values())
        board = TaskBoard(broker, {name: queue.resource.spec.lanes for name, queue in plan.queues.items()})
        await parts.enter_async_context(board.listening())
        stop = parts.enter_context(stopping())
        with display_for(terminal, passing=options.until_done) as display:
            run = Run(plan, project, broker, starter, board, display, options.files, reload=options.reload)
            address = ""
            if not options.until_done:
                address = await parts.enter_async_context(served(broker, plan, options.http_port))
                display.say(f"HTTP API and dashboard at {address}")
            for remark in (*plan.remarks, *_signed_by(plan), *_misleading(terminal.environ)):
                display.say(remark)
            if idle := plan.idle_fields:
                display.say(f"ignored here, since they are for a cluster: {', '.join(idle)}")
            try:
                with ungrouped():
                    async with asyncio.TaskGroup() as background:
                        watch = background.create_task(
                            ServerWatch(server, cramped=lambda: project.cramped, say=display.say).run()
                        )
                        await run.until(stop, done=options.until_done, http=address)
                        watch.cancel()
            except asyncio.CancelledError:
                if not stop.hurried:
                    raise
    if stop.hurried:
        terminal.say("stopped at once; running tasks start again with the next `galley dev`")
        return ExitCode.INTERRUPTED
    if not options.until_done:
        return ExitCode.DONE
    if board.open_tasks():
        left = len(board.open_tasks())
        said = "1 task has not ended; the next `galley dev` continues it"
        if left > 1:
            said = f"{left} tasks have not ended; the next `galley dev` continues them"
        terminal.say(said)
        return ExitCode.INTERRUPTED
    surprises = print_results(terminal, plan.tasks, board, began)
    print_moves(terminal, run.runtimes, began)
    return ExitCode.FAILED if surprises else ExitCode.DONE


def _signed_by(plan: Plan) -> Iterator[str]:
    for secret, place in plan.signing_keys.items():
        yield f"requests of HTTP handlers with secretName {secret} are signed with the key in {place}"


def _misleading(environ: Mapping[str, str]) -> Iterator[str]:
    """Return a warning about variables that direct commands of this shell to another server."""
    found = [name for name in (SERVER_VARIABLE, NAMESPACE_VARIABLE) if environ.get(name)]
    if found:
        yield (
            f"{' and '.join(found)} {'is' if len(found) == 1 else 'are'} set: commands in this shell follow "
            "that, not this `galley dev`; unset it there to reach the queues here"
        )


class Run:
    """Runs the queues of a plan."""

    def __init__(  # noqa: PLR0917 - what it runs on
        self,
        plan: Plan,
        project: Project,
        broker: Broker,
        starter: WarmStarter,
        board: TaskBoard,
        display: Display,
        files: tuple[Path, ...] = (),
        *,
        reload: bool = True,
    ) -> None:
        reader = SignalReader(broker)
        self.runtimes = [
            QueueRuntime(
                broker, reader, starter, queue, project, as_setting(plan.keys), as_setting(plan.signing_keys)
            )
            for queue in plan.queues.values()
        ]
        namespaces = dict.fromkeys(namespace for namespace, _ in plan.queues)
        self._topics = {each: LocalTopics(broker, each, display.say) for each in namespaces}
        self._plan, self._project, self._files, self._reload = plan, project, files, reload
        self._broker, self._board, self._display = broker, board, display
        self._declared_work = DeclaredWork(plan, broker, board, display)
        self._submitted = asyncio.Event()
        self._all_ended = asyncio.Event()
        """Set, too, when the tasks that are left cannot end."""
        self._note = "Ctrl-C drains and ends"

    async def until(self, stop: "Stop", *, done: bool, http: str = "") -> None:
        """Run until stopped; with `done`, or until the declared tasks have ended and the workers are gone.

        Args:
            stop: set when it is to stop.
            done: whether it stops when the declared tasks have ended.
            http: address of the HTTP API; empty if none is served.
        """
        async with asyncio.TaskGroup() as background:
            showing = background.create_task(self.show_all_the_time(), name="display")
            async with AsyncExitStack() as queues:
                for runtime in self.runtimes:
                    await queues.enter_async_context(runtime)
                for topics in self._topics.values():
                    await topics.begin(self._declared(self._plan, topics), self._plan.queues.values())
                # Who finds this server is told that a queue is not there as long as it is not.
                self._project.announce(self._broker.server, self._plan.namespace, http)
                await self._declared_work.submit()
                self._submitted.set()
                names = ", ".join(queue for _, queue in self._plan.queues)
                self._display.say(f"serving {names} at {self._broker.server}")
                await self._tell_of_pauses()
                watch = self._code_watch()
                works: list[tuple[str, Callable[[], Awaitable[None]]]] = [
                    ("code watch", watch.run if self._reload else watch.begin),
                    ("objects", ObjectCollector(self._broker, INSTALL).run),
                    *(("scaler", each.run) for each in self.runtimes),
                    *(("topics", each.run) for each in self._topics.values()),
                ]
                faults = Faults(lambda where: self._display.say(f"unexpected error ({where}), see dev.log"))
                beside = [
                    background.create_task(faults.keep_running(where, work), name=where)
                    for where, work in works
                ]
                if done:
                    await stop.or_after(self._all_over())
                else:
                    await stop.asked.wait()
                for task in beside:
                    task.cancel()
                await self._begin_drain()
            showing.cancel()
        self._note = "ended"
        await self._show()

    async def _tell_of_pauses(self) -> None:
        """Name the queues that `galley pause` or `galley drain` held when they were served last."""
        for namespace, queue in self._plan.queues:
            if await is_paused(self._broker, namespace, queue):
                self._display.say(f"queue/{queue}: paused; galley resume {queue} starts tasks again")

    def _code_watch(self) -> CodeWatch:
        runtimes = {runtime.queue.name: runtime for runtime in self.runtimes}
        return CodeWatch(
            self._plan.queues.values(),
            self._plan.manifests,
            replace=lambda queue: runtimes[queue.name].replace_workers(),
            say=self._display.say,
            reread=self._reread,
        )

    async def _reread(self, path: Path) -> list[LocalQueue]:
        """Take over what a changed manifest says of the queues that are served; returns them."""
        say = self._display.say
        try:
            plan = await read_plan(self._files, self._project.folder)
        except GalleyError as error:
            say(f"{path} changed, and is not used: {error}; {error.hint}")
            return [runtime.queue for runtime in self.runtimes]
        changed = []
        for runtime in self.runtimes:
            queue = plan.queues.pop(runtime.queue.name, None)
            if queue is None or queue.resource == runtime.queue.resource:
                continue
            name = queue.name[1]
            if _fixed(queue) != _fixed(runtime.queue):
                say(f"{path} changed lanes or encryption of {name}: start `galley dev` again to use it")
                continue
            try:
                await runtime.change(queue)
                changed.append(name)
            except GalleyError as error:
                say(f"queue {name} stays as it was: {error}; {error.hint}")
        if changed:
            say(f"{path} changed: {', '.join(changed)} taken over")
            self._project.declare(runtime.queue.declared for runtime in self.runtimes)
        if plan.queues:
            new = ", ".join(name for _, name in plan.queues)
            say(f"{path} has further queues: start `galley dev` again for {new}")
        for topics in self._topics.values():
            topics.declare(self._declared(plan, topics))
        try:
            await self._declared_work.keep_schedules(plan.schedules)
        except GalleyError as error:
            say(f"schedules stay as they were: {error}; {error.hint}")
        return [runtime.queue for runtime in self.runtimes]

    @staticmethod
    def _declared(plan: Plan, topics: LocalTopics) -> list[Declared]:
        mine = (each for each in plan.topics if each.metadata.namespace == topics.namespace)
        return [Declared(*declared_topic(each)) for each in mine]

    async def _all_over(self) -> None:
        """Return when the declared tasks have ended and the workers are gone.

        Raises:
            WorkersDoNotStart: if tasks are left in queues whose workers do not start, and in no other.
        """
        await self._all_ended.wait()
        for runtime in self._left():
            raise WorkersDoNotStart(runtime.queue.name[1], runtime.fleet.problem)
        for runtime in self.runtimes:
            runtime.finish()
        await gone(self.runtimes)

    def _left(self) -> list[QueueRuntime]:
        """Return the queues of which declared tasks have not ended."""
        queues = {(address.namespace, address.queue) for address in self._board.open_tasks()}
        return [runtime for runtime in self.runtimes if runtime.queue.name in queues]

    async def _begin_drain(self) -> None:
        """Drain all workers, and say what that waits for."""
        await self._board.look()
        running = [status for status in self._board.tasks() if status.phase is Phase.RUNNING]
        if running:
            names = ", ".join(status.address.id for status in running[:_NAMED_TASKS])
            more = f" and {len(running) - _NAMED_TASKS} more" if len(running) > _NAMED_TASKS else ""
            longest = max(runtime.grace_seconds for runtime in self.runtimes)
            self._display.say(
                f"draining: {names}{more} may finish within {longest} s, then they are handed back; "
                "Ctrl-C again stops at once"
            )
        self._note = "draining; Ctrl-C again stops at once"
        for runtime in self.runtimes:
            runtime.fleet.dismiss()

    async def show_all_the_time(self) -> None:
        """Show the state again and again.

        Raises:
            OutputFailed: if it cannot be written.
        """
        loop = asyncio.get_running_loop()
        while True:
            next_look = loop.time() + SHOW_SECONDS
            try:
                await self._show()
            except GalleyError:
                raise
            except Exception:
                # Showing is not worth ending the queues for; the next round may succeed.
                log.exception("state not shown")
            await asyncio.sleep(max(0.05, next_look - loop.time()))

    async def _show(self) -> None:
        queues = [await of_queue(runtime) for runtime in self.runtimes]
        seen = zip(self.runtimes, queues, strict=True)
        await self._board.look(
            [(runtime.queue.name, lane) for runtime, queue in seen for lane in queue.empty]
        )
        if self._submitted.is_set() and all(runtime.fleet.stuck for runtime in self._left()):
            self._all_ended.set()
        moment = Snapshot(
            datetime.now(UTC), self._broker.server, tuple(queues), tuple(self._board.tasks()), self._note,
            self._board.passed_over,
        )  # fmt: skip
        # A terminal may be stopped (Ctrl-S), which must not stop the queues.
        await asyncio.to_thread(self._display.show, moment)


def _fixed(queue: LocalQueue) -> tuple[object, ...]:
    """Return what a queue keeps as long as it is served."""
    return queue.resource.spec.lanes, queue.resource.spec.encryption
