"""The client of producers: submits tasks and finds them again."""

import asyncio
import functools
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from galley import dev_file, tracing
from galley.address import Kind, TaskAddress
from galley.batch import Batch, Submission, SubmitInterrupted, note
from galley.bounds import is_queue_name
from galley.broker import inspect, queue_view
from galley.broker.cached_tasks import publish_cached
from galley.broker.connection import DEFAULT_SERVER, Broker
from galley.broker.encryption_rules import EncryptionRules
from galley.broker.objects import Place
from galley.broker.publish import Publisher
from galley.broker.topics import Published
from galley.broker.unique_keys import UniquePublisher
from galley.cached import Cached, Entry, entry_of
from galley.calls import Call, check_handler_name, check_queue_name
from galley.encryption.given import Given, keys_in, payloads_with, read_given
from galley.envelope import Envelope, digest_of
from galley.errors import InputInvalid, ResultTimeout, SubmissionInvalid
from galley.event import Attribute
from galley.file import File
from galley.handle import AsyncHandle
from galley.handler import check_call
from galley.inside import line
from galley.labels import merged, selector
from galley.lanes import Lane
from galley.limit import check_limit
from galley.note import LogLine
from galley.queues import AsyncQueues
from galley.redrive import AsyncDeadLetters
from galley.schedules import AsyncSchedules
from galley.target import (
    CREDENTIALS_VARIABLE,
    DEFAULT_NAMESPACE,
    NAMESPACE_VARIABLE,
    Target,
    find_target,
)
from galley.task_id import check_task_id, new_task_id
from galley.task_status import Phase, TaskStatus
from galley.tls import Tls, tls_of
from galley.topics import AsyncTopics
from galley.unique import Asked, wanted
from galley.when import NO_RULES, When
from galley.workflow.result import lacking
from galley.workflow.shape import Shape
from galley.workflow.state import PREFIX
from galley.workflows import AsyncWorkflow, AsyncWorkflows

R = TypeVar("R")

PATIENCE_SECONDS: Final = 30.0
"""How long a submit is tried again while the broker gives no answer."""

LONGEST_KEEP_SECONDS: Final = 30 * 86_400.0
"""For how long a file may be kept that no task refers to."""

# Each task needs them, and to look a member of an enumeration up costs as much as to encode a task.
_NORMAL: Final = Lane.NORMAL
_DIRECT: Final = Kind.DIRECT


class AsyncClient:
    """Submits tasks to the queues of one namespace and finds them again.

    Use it as `async with galley.AsyncClient() as client:`. It belongs to the event loop in which it was
    entered; `galley.Client` is for programs without an event loop.
    """

    def __init__(
        self,
        server: str | None = None,
        namespace: str | None = None,
        *,
        credentials: Path | None = None,
        tls: Tls | None = None,
        keys: Given | None = None,
    ) -> None:
        """Describe the client; it connects when it is entered.

        Args:
            server: address of NATS; else `GALLEY_SERVER`, else the `galley dev` that runs in this folder or
                one above it, else `nats://127.0.0.1:4222`.
            namespace: the one whose queues it submits to; else `GALLEY_NAMESPACE`, else that of the `galley
                dev` it connects to, else `default`.
            credentials: credentials file; else `GALLEY_CREDENTIALS`, else none. It is read again at each
                reconnection, so it can be renewed while the client is open.
            tls: authorities to trust and a certificate to show; else `GALLEY_TLS_CA`,
                `GALLEY_TLS_CERTIFICATE`, `GALLEY_TLS_KEY` and `GALLEY_TLS_SERVER_NAME`. With any of these, or
                a `tls://` address, the connection is never plain text; else it is encrypted if the server
                requires it.
            keys: of encrypted queues: a folder with a file for each key, or the manifest of their Secret, for
                all queues this client works with; or a mapping from the name of a queue to that. Else
                `GALLEY_KEYS`: `PATH` or `QUEUE=PATH`, several separated as in PATH. They are read again while
                the client is open, so they can be rotated.

        Raises:
            EncryptionKeysInvalid: if the keys cannot be used.
            SubmissionInvalid: if there can be no such namespace.
        """
        target = _nearest_target(server, namespace)
        if credentials is None and not target.local and (named := os.environ.get(CREDENTIALS_VARIABLE)):
            credentials = Path(named)
        if tls is None and not target.local:
            tls = tls_of(target.server, os.environ)
        payloads = payloads_with(keys if keys is not None else read_given(keys_in(os.environ)))
        broker = Broker(
            target.server, name="galley client", credentials=credentials, tls=tls, payloads=payloads
        )
        broker.objects_at = os.environ
        self._use(broker, target.namespace, PATIENCE_SECONDS)

    @classmethod
    def over(
        cls, broker: Broker, namespace: str = DEFAULT_NAMESPACE, patience_seconds: float = PATIENCE_SECONDS
    ) -> Self:
        """Return a client of a connection that something else opens and closes.

        Args:
            broker: the connection.
            namespace: the one whose queues it submits to.
            patience_seconds: how long a submit is tried again while the broker gives no answer.

        Raises:
            SubmissionInvalid: if there can be no such namespace.
        """
        client = cls.__new__(cls)
        client._use(broker, namespace, patience_seconds)  # noqa: SLF001 - of this very class
        return client

    def _use(self, broker: Broker, namespace: str, patience_seconds: float) -> None:
        if not is_queue_name(namespace):
            raise SubmissionInvalid(
                "namespace", f"{namespace[:80]!r} is not the name of a namespace",
                "use 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit",
            )  # fmt: skip
        self.broker = broker
        self.namespace = namespace
        self._publisher = Publisher(broker, patience_seconds)
        self._unique = UniquePublisher(broker, self._publisher)
        self.dead_letters = AsyncDeadLetters(
            broker, namespace, self._publisher, functools.partial(task_address, namespace)
        )
        """Dead letters: list, edit, drop and redrive them."""
        self.schedules = AsyncSchedules(
            broker, namespace, self._publisher, lambda call: self._task(call, NO_RULES, None, ()).envelope
        )
        """Schedules: create, inspect, suspend, resume, run and delete them."""
        self.topics = AsyncTopics(broker, namespace, self._publisher)
        """Topics: publish, list, read and replay events."""
        self.workflows = AsyncWorkflows(broker, namespace, self._publisher, self._step)
        """Workflows: submit, inspect, cancel and redrive them."""

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnreachable, BrokerTooOld, ServerInvalid: there is no usable broker.
            CredentialsInvalid, CredentialsExpired, AccessRefused: authentication failed.
            TlsInvalid: a file with certificates or a key cannot be used.
            TlsFailed, CertificateRefused, ClientCertificateRefused, NotEncrypted: no encrypted connection.
        """
        await self.broker.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.broker.__aexit__(kind, error, trace)

    @overload
    async def submit(
        self, call: Call[R], when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: Asked | None = None, key: str | None = None,
    ) -> AsyncHandle[R]: ...  # fmt: skip
    @overload
    async def submit(
        self, call: Shape, when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None, unique: None = None, key: None = None,
    ) -> AsyncWorkflow[Any]: ...  # fmt: skip
    async def submit(
        self, call: Call[R] | Shape, when: When | None = None, *, task_id: str | None = None,
        labels: dict[str, str] | None = None,
        unique: Asked | None = None, key: str | None = None,
    ) -> AsyncHandle[R] | AsyncWorkflow[Any]:  # fmt: skip
        """Submit one task or workflow; return when the broker has stored it.

        Args:
            call: the handler and its input, from `handler.call(...)` or `galley.call(...)`; or a chain, group
                or graph, for which `workflows.submit` has further rules.
            when: lane, times and retries; those of `call.options(...)` come before them, those of `@task` and
                then the queue's after them.
            task_id: an id of your own, 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`. The same handler and
                input under the same id is the same task, waiting, running or ended: it is not stored again,
                `handle.existed` is true, the handle leads to its outcome, and lane, times and retries stay
                those of the first submission. An id is remembered until the record of its task expires
                (`spec.retention.resultsSeconds` after its end); then it can be used again.
            labels: words to find the task by, with the syntax of Kubernetes: at most 64, added to those of
                `@task`, `options` and `when`. They are not encrypted.

            unique: at most one task of the queue has its key at a time: a key, `galley.Unique(...)`, True for
                a key made of handler and input, or False. It comes before what `call.options(...)`, `when`
                and `@task` say, and excludes an id of your own.
            key: a text of up to 256 bytes, such as the name of a customer. Tasks of one key take turns with
                those of other keys in their lane, however many there are, and `spec.limits.perKey` of the
                queue limits how many of them run at once. It is not encrypted.

        Raises:
            LabelInvalid: a label is not allowed.
            UniqueConflict: another task has the unique key; nothing was stored.
            TaskConflict: the id is in use for another handler or another input; nothing was stored. If two
                such submissions meet at the same moment, or the record of a task that ended does not have
                its input, it is raised by `handle.result()` or not at all.
            QueueNotFound, LaneNotEnabled, QueueFull: not accepted.
            EncryptionRequired, QueueNotEncrypted: the queue is encrypted and the client has no keys of it, or
                the other way round; nothing was sent.
            KeyServiceUnavailable: the key service does not answer; nothing was sent.
            SubmissionInvalid: `call` is none, or the id or the times are not valid.
            BrokerUnreachable, BrokerSilent: no answer; submitting the same id again is safe.
            BrokerFull: the broker has no room; nothing was stored.
            NotAllowed: the credentials are of another queue or role.
            ObjectsFull, ObjectStoreUnavailable: an input above 256 KiB, or a file, could not be stored.
            FileUnreadable, FileChanged: a file cannot be read, or changed while it was.
            ObjectMissing: a file of a result is not stored any more, or not in this queue.
            ClientClosed, ClientElsewhere: the client is closed, or belongs to another event loop.
        """
        if isinstance(call, Shape):
            if key is not None:
                raise SubmissionInvalid(
                    "key", "a workflow has no key of its own", "give its steps keys: call.options(key=...)"
                )
            if unique:
                raise SubmissionInvalid(
                    "unique", "a workflow has no unique key", "give it an id of your own: task_id"
                )
            return await self.workflows.submit(call, id=task_id, when=when, labels=labels)
        check_call(call)
        if unique is not None or key is not None:
            call = call.options(unique=unique, key=key)
        with tracing.span("submit", call.queue, call.handler, kind="PRODUCER"):
            task = self._task(call, _rules(when, labels), task_id, line())
            address, envelope = task.address, task.envelope
            try:
                if call.large or call.files:
                    envelope = await self._with_objects(call, address, envelope)
                if task.unique is not None:
                    receipt = await self._unique.publish(address, envelope, task.unique)
                elif task.cached is not None:
                    receipt = await publish_cached(
                        self.broker, self._publisher, address, envelope, task.cached
                    )
                elif envelope.digest:
                    receipt = await self._publisher.publish_once(address, envelope)
                else:
                    receipt = await self._publisher.publish(address, envelope)
            except asyncio.CancelledError as cancelled:
                unknown = AsyncHandle[Any](self.broker, address, envelope, call.result)
                cancelled.__cause__ = SubmitInterrupted({}, {}, {0: unknown}, 1, "it was cancelled")
                raise
            handle = AsyncHandle[R](self.broker, address, envelope, call.result)
            note(handle, receipt)
            return handle

    async def submit_many(
        self, calls: Iterable[Call[R]], when: When | None = None, *, labels: dict[str, str] | None = None
    ) -> list[AsyncHandle[R]]:
        """Submit many tasks, pipelined; return when the broker has stored all of them.

        Args:
            calls: as for `submit`, each with options of its own if it has any.
            when: rules of all of them.
            labels: added to each.

        Raises:
            LabelInvalid: a label is not allowed.
            SubmissionInvalid: `calls` is not iterable.
            SomeRefused: if any was not accepted; it holds the handles of those that were, and for each of
                the others what `submit` would have raised.
            SubmitInterrupted: if it ended early, because `calls` raised or the broker went away; it holds
                the handles of all that were sent. If it is cancelled or times out, `CancelledError` or
                `TimeoutError` is raised as usual, and `SubmitInterrupted.of(error)` returns this one.
            ClientClosed, ClientElsewhere: the client is closed, or belongs to another event loop.
        """
        self.broker.check_usable()
        with tracing.span("submit many", self.namespace, kind="PRODUCER"):
            return await self._batch(_rules(when, labels)).submit(calls)

    def _batch(self, rules: When) -> Batch[Any]:
        ancestors = line()
        make: Callable[..., AsyncHandle[Any]] = functools.partial(AsyncHandle, self.broker)
        return Batch(
            self._publisher, self._unique, lambda call: self._task(call, rules, None, ancestors), make,
            self._with_objects,
        )  # fmt: skip

    async def _with_objects(self, call: Call[Any], address: TaskAddress, envelope: Envelope) -> Envelope:
        from galley.objects.transfer import with_objects  # noqa: PLC0415 - most programs need none of it

        self.broker.check_usable()
        return await with_objects(self.broker.objects, address, envelope, call.files)

    async def put_file(
        self, queue: str, file: str | os.PathLike[str] | File, *, keep: timedelta | float = 3600.0
    ) -> File:
        """Store a file for later tasks of this program, of others, or of manifests.

        Args:
            queue: the queue whose tasks may have it as an argument.
            file: the file, or its path.
            keep: how long it is kept at least while no task refers to it, in seconds; at most 30 days. A task
                that was submitted keeps it as long as it needs it.

        Raises:
            SubmissionInvalid: `keep` is not between 0 and 30 days.
            EncryptionRequired, QueueNotEncrypted, KeyServiceUnavailable: as `submit`.
            QueueNotFound: there is no such queue.
            ObjectsFull, ObjectStoreUnavailable: it could not be stored.
            FileUnreadable, FileChanged: it cannot be read, or changed meanwhile.
            NotAllowed: the credentials are of another queue.
            QueueNameInvalid: no queue can have that name.
            BrokerUnreachable, ClientClosed, ClientElsewhere: as `submit`.
        """
        from galley.objects.transfer import put_file  # noqa: PLC0415 - most programs need none of it

        self.broker.check_usable()
        seconds = keep.total_seconds() if isinstance(keep, timedelta) else float(keep)
        if not 0 <= seconds <= LONGEST_KEEP_SECONDS:
            raise SubmissionInvalid("keep", f"{seconds:.0f} s is not between 0 and 30 days", "use 30 days")
        address = task_address(self.namespace, queue, "put")
        await queue_view.queue(self.broker, self.namespace, queue)
        await EncryptionRules(self.broker).check(address, PATIENCE_SECONDS)
        source = file if isinstance(file, File) else File(file)
        return await put_file(self.broker.objects, Place.of(address), source, seconds)

    async def download(self, file: File, to: str | os.PathLike[str]) -> Path:
        """Write the content of a file in a result to a path, atomically, and return the path.

        Args:
            file: from `handle.result()`.
            to: the path; in a folder it gets the name of the file.

        Raises:
            ObjectMissing: the file is not stored any more.
            ObjectDamaged: the stored content does not match its digest.
            ObjectStoreUnavailable: the object store does not answer; asking again is safe.
            ObjectStoreUnknown: it is in a bucket other than that of `GALLEY_OBJECTS`.
            FileUnreadable: the path cannot be written.
            FileElsewhere: the file is not from a result.
        """
        from galley.objects.transfer import download  # noqa: PLC0415

        self.broker.check_usable()
        return await download(self.broker.objects, file, Path(to))

    async def publish(
        self, topic: str, data: Any = None, attributes: Mapping[str, Attribute] | None = None, **rules: Any
    ) -> Published:
        """Publish an event: `AsyncTopics.publish`, with its other arguments.

        Raises:
            EventInvalid, TopicNotFound, TopicFull, HopLimit, NotAllowed: as there.
            BrokerUnreachable, BrokerSilent, ClientClosed, ClientElsewhere: as there.
        """
        return await self.topics.publish(topic, data, attributes, **rules)

    def handle(self, queue: str, task_id: str) -> AsyncHandle[Any]:
        """Return a handle on a task submitted earlier, by this or another program.

        Raises:
            SubmissionInvalid, QueueNameInvalid: if no task can have that id, or no queue that name.
        """
        return AsyncHandle(self.broker, task_address(self.namespace, queue, task_id), None)

    @property
    def queues(self) -> AsyncQueues:
        """Operations on queues: inspect, pause, drain and purge them, cancel many tasks at once."""
        return AsyncQueues(self.broker, self.namespace)

    async def logs(self, queue: str, task_id: str, attempt: int | None = None) -> list[LogLine]:
        """Return the output of a task's handler: `AsyncHandle.logs`.

        Raises:
            SubmissionInvalid, QueueNameInvalid: no task can have that id, or no queue that name.
            DecryptionKeyMissing, BrokerUnreachable: as there.
        """
        return await self.handle(queue, task_id).logs(attempt)

    async def tasks(
        self, queue: str, phase: Phase | None = None, *, labels: str = "", limit: int | None = None
    ) -> list[TaskStatus]:
        """Return the tasks of a queue, in the order they were submitted; ended ones until they expire.

        Without a limit it reads all of them, so use a limit for queues with millions of tasks.

        Args:
            queue: name of the queue.
            phase: only tasks in this phase; None for all.
            labels: only tasks whose labels fit this selector, such as `team=billing,tier!=low`.
            limit: read so many of those whose state changed last, and so many of each lane that have not
                ended, the oldest first; `phase` and `labels` choose among these. Returns the last submitted
                ones, at most so many. 1 to 10,000; None for all.

        Raises:
            SelectorInvalid: `labels` is no selector.
            SubmissionInvalid: there is no such limit.
            QueueNotFound, QueueNameInvalid: there is no such queue, or there can be none.
            NotAllowed: the credentials may not list the queue.
            BrokerUnreachable: the broker does not answer.
            ClientClosed, ClientElsewhere: the client is closed, or belongs to another event loop.
        """
        self.broker.check_usable()
        fits = selector(labels)
        await queue_view.queue(self.broker, self.namespace, check_queue_name(queue))
        if limit is None:
            found = await inspect.tasks_in_order(self.broker, self.namespace, queue, phase)
        else:
            read = await inspect.latest(self.broker, self.namespace, queue, check_limit(limit))
            found = [status for status in read if phase in (None, status.phase)]
        chosen = [status for status in found if fits(status.labels)]
        return chosen if limit is None else chosen[-limit:]

    async def as_completed(
        self, handles: Iterable[AsyncHandle[R]], within: float | None = None
    ) -> AsyncGenerator[AsyncHandle[R], None]:
        """Yield each handle when its task has ended, in any way, in the order in which they end.

        Args:
            handles: any number of them; one that occurs twice is yielded twice.
            within: seconds for all of them; None waits without a limit.

        Raises:
            ResultTimeout: not all had ended in time; names one that had not.
            WaitsForOwnQueue, WaitsInCircle, QueueNotFound, BrokerUnreachable, ClientClosed,
                ClientElsewhere: as
                `AsyncHandle.result`.
        """
        waiting = {asyncio.create_task(handle.wait()): handle for handle in handles}
        # Each tells of its own end: `asyncio.wait` for the first of many costs their square.
        ended: asyncio.Queue[asyncio.Task[TaskStatus]] = asyncio.Queue()
        for one in waiting:
            one.add_done_callback(ended.put_nowait)
        until = None if within is None else asyncio.get_running_loop().time() + within
        try:
            while waiting:
                try:
                    async with asyncio.timeout_at(until):
                        one = await ended.get()
                except TimeoutError:
                    raise ResultTimeout(next(iter(waiting.values())).id, within or 0.0) from None
                handle = waiting.pop(one)
                one.result()
                yield handle
        finally:
            for one in waiting:
                one.cancel()
            if waiting:
                await asyncio.wait(waiting)

    def _entry(self, call: Call[Any], rules: Cached, now: datetime) -> Entry:
        somewhere = TaskAddress(self.namespace, call.queue, Lane.NORMAL, Kind.DIRECT, "")
        if self.broker.payloads.keys_of(somewhere) is not None:
            raise SubmissionInvalid(
                "cache", f"queue {call.queue!r} is encrypted, and the id of a cached task tells of its input",
                "use a handler without cache there",
            )  # fmt: skip
        return entry_of(call, rules, now)

    def _step(self, call: Call[Any], when: When) -> tuple[TaskAddress, Envelope]:
        task = self._task(call, when, None, line())
        return task.address, task.envelope

    def _task(self, call: Call[R], when: When, task_id: str | None, ancestors: tuple[str, ...]) -> Submission:
        check_queue_name(call.queue)
        check_handler_name(call.handler)
        if call.partial is not None:
            raise InputInvalid(
                call.handler, lacking(call.partial), "pass all arguments, or use the call in a chain or graph"
            )
        now = datetime.now(UTC)
        rules = when if call.rules is None else call.rules.over(when)
        own_id = call.task_id if task_id is None else check_task_id(task_id)
        cached = None
        if own_id is not None and own_id.startswith(PREFIX):
            raise SubmissionInvalid("task id", f"{own_id!r} is for steps of workflows", "use another one")
        if call.cache is not None and own_id is None:
            cached = self._entry(call, call.cache, now)
            own_id = cached.id
        lane = rules.lane or call.lane or _NORMAL
        labels = rules.labels if call.labels is None else merged(rules.labels, call.labels)
        unique = call.unique if rules.unique is None else rules.unique
        if unique and own_id is not None:
            raise SubmissionInvalid(
                "unique", "a task of a unique key cannot have an id of your own", "leave one of them out"
            )
        return Submission(
            TaskAddress(
                self.namespace, call.queue, lane, _DIRECT, new_task_id() if own_id is None else own_id
            ),
            Envelope(
                call.handler,
                now,
                input=call.input,
                not_before=rules.not_before if rules.not_before and rules.not_before > now else None,
                deadline=rules.deadline,
                timeout_seconds=rules.timeout_seconds,
                retry=rules.retry,
                digest="" if own_id is None else digest_of(call.handler, call.input),
                ancestors=ancestors,
                labels=labels or None,
                key=call.key_under(rules),
                trace=tracing.present(),
            ),
            wanted(unique, call.handler, call.input) if unique else None,
            cached,
        )


def _rules(when: When | None, labels: dict[str, str] | None) -> When:
    rules = NO_RULES if when is None else when
    if not isinstance(rules, When):
        hint = "pass galley.When(not_before=..., deadline=..., lane=...)"
        raise SubmissionInvalid("when", f"it is of type {type(when).__name__}", hint)
    return rules if labels is None else When(labels=labels).over(rules)


def task_address(namespace: str, queue: str, task_id: str) -> TaskAddress:
    """Return the address of a task; its lane need not be right.

    Raises:
        SubmissionInvalid, QueueNameInvalid: if no task can have that id, or no queue that name.
    """
    check_queue_name(queue)
    return TaskAddress(namespace, queue, Lane.NORMAL, Kind.DIRECT, check_task_id(task_id))


def connect(
    server: str | None = None,
    namespace: str | None = None,
    *,
    credentials: Path | None = None,
    tls: Tls | None = None,
    keys: Given | None = None,
) -> AsyncClient:
    """Return `AsyncClient(...)`, to be used as `async with galley.connect() as client: ...`."""
    return AsyncClient(server, namespace, credentials=credentials, tls=tls, keys=keys)


def _nearest_target(server: str | None, namespace: str | None) -> Target:
    nearest = dev_file.nearest(dev_file.here())
    found = find_target(server, namespace, os.environ, nearest[1] if nearest else None)
    return found or Target(
        DEFAULT_SERVER, namespace or os.environ.get(NAMESPACE_VARIABLE) or DEFAULT_NAMESPACE
    )
