"""Names of every stream, consumer and subject; `stream_config` has the configuration of each stream.

Each queue has eight streams of its own, so that none can take the room of another: *work* and *later* with
one consumer a lane each, *records*, *dead letters*, *objects* for large inputs and results, *notes*:
output, progress and checkpoints, *counts*: how many attempts ended, and how, and *flows*: the plans of
workflows and how far they are. Delayed tasks enter by the work stream, and workers move them.

Why these: docs/adr/0001-a-broker-not-a-database.md, 0003-lanes.md and 0019-quotas.md.
"""

from dataclasses import dataclass
from typing import Final

from galley.address import Kind, TaskAddress
from galley.broker.stream_kind import StreamKind, name_of
from galley.lanes import Lane

LEASE_SECONDS: Final = 30.0
"""How long the broker waits for a sign of life before another worker may take the task: three
renewals, so that two lost ones do not double a run."""

DECLARED_KEPT_SECONDS: Final = 24 * 3600
"""The end of a declared task is kept for so long at least: an operator that was away still learns of it,
instead of submitting the task again."""

MIN_SERVER: Final = (2, 12, 2)
"""First nats-server with message schedules on which all facts hold that we rely on: 2.12.0 and 2.12.1 hand
out nothing for a while after a purge, so a cancelled task holds up others. 2.15.1 is what the tests run."""

SHORTEST_DELAY_SECONDS: Final = 0.25
"""A schedule nearer than this fires after this: the server's timer has that grain."""

NOTE_SECONDS: Final = 30 * 24 * 3600
"""How long output is kept, if there is room."""

OUTPUT_BYTES: Final = 64 * 1024**2
OBJECT_BYTES: Final = 256 * 1024**2
WORKFLOW_BYTES: Final = 64 * 1024**2
"""What queues set aside for notes, objects and workflows unless they say otherwise."""

FLOW_SHARE: Final = 0.7
"""Share of the stream of workflows that plans may take; the rest is for their states, which grow."""

COUNT_BYTES: Final = 256 * 1024
"""Most bytes of a queue's counts: about ten times what those of five lanes take."""

PLAN: Final = "plan"
"""Consumer of the work stream for delayed tasks: a worker moves them to the later stream."""

TIMER: Final = "timer"
"""Consumer of the later stream for schedules that are due, and the word that stands in their subjects where a
task has its lane."""

SCHEDULED: Final = "cron"
"""Stands in the subjects of schedules where a task has its kind."""

FIRST_SHARE: Final = 0.5
"""Share of the later stream's bytes that tasks submitted for later may take; the rest is kept for retries."""

RETRY_SHARE: Final = 0.9
"""Share up to which retries are stored. Above it the server moves tasks that are due, and they must fit."""

NO_QUEUE: Final = "_"
"""Stands in the subjects of audit lines that are about a namespace, and not a queue."""

FLAGS_HEADER: Final = "Galley"
INCREMENT: Final = "Nats-Incr"
MESSAGE_ID: Final = "Nats-Msg-Id"
EXPECTED_SEQUENCE: Final = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
TTL: Final = "Nats-TTL"
SCHEDULE: Final = "Nats-Schedule"
SCHEDULE_TARGET: Final = "Nats-Schedule-Target"

OWNER_KEY: Final = "galley.dev/install"
QUEUE_KEY: Final = "galley.dev/queue"
NAMESPACE_KEY: Final = "galley.dev/namespace"
LANES_KEY: Final = "galley.dev/lanes"
ENCRYPTION_KEY: Final = "galley.dev/encryption"
"""Whether the queue's payloads are encrypted: `required`, or `none`; so producers learn of it."""
LIMITED_KEY: Final = "galley.dev/limited"
"""What tasks of a key wait for, of a work stream whose queue limits them; others do not have it."""
LIFE_KEY: Final = "galley.dev/life-events"
"""The topic that hears of the queue's tasks, of a work stream whose queue asks for that."""
UID_KEY: Final = "galley.dev/uid"
SUBSCRIBERS_KEY: Final = "galley.dev/subscribers"
"""Of the stream of topics: the queues that have a consumer there."""
ORPHANED_KEY: Final = "galley.dev/orphaned-at"
"""Since when the queue is known to be gone; streams of a queue that is there do not have it."""
RESTORING_KEY: Final = "galley.dev/restoring"
"""The archive a stream is being restored from, until that is complete."""
MARK_KEY: Final = "galley.dev/mark"
"""Of a work stream: a life of the server, and a sequence (`galley.broker.mark`)."""

ENCRYPTED: Final = "required"
NOT_ENCRYPTED: Final = "none"


@dataclass(frozen=True)
class QueueLayout:
    """What the broker has to know about one queue."""

    namespace: str
    queue: str
    lanes: tuple[Lane, ...]
    backlog: int
    """Ready and running tasks the queue holds at most; further ones are refused."""
    backlog_bytes: int
    in_flight: int
    """Most tasks all workers may hold per lane: a fuse, not the limit."""
    install: str
    """Which installation of Galley owns the streams."""
    later_bytes: int = 256 * 1024**2
    """Disk the stream of tasks for later may take, retries included."""
    record_bytes: int = 256 * 1024**2
    """Disk the queue's records may take; the oldest go first, since completion must never block."""
    dead_letter_bytes: int = 64 * 1024**2
    """Disk the queue's dead letters may take; what does not fit stays in the work stream."""
    dead_letter_seconds: int = 0
    """How long dead letters are kept; 0 is until they are dropped or redriven."""
    object_bytes: int = OBJECT_BYTES
    """Disk the queue's large inputs, results and files may take; what does not fit is refused."""
    output_bytes: int = OUTPUT_BYTES
    """Disk the output, progress and checkpoints of tasks may take; the oldest go first."""
    workflow_bytes: int = WORKFLOW_BYTES
    """Disk the plans and the state of workflows may take; what does not fit is refused."""
    lease_seconds: float = LEASE_SECONDS
    """How long the broker waits for a sign of life; workers need the same value."""
    uid: str = ""
    """Of the TaskQueue these streams are for; empty where there are no such objects."""
    encrypted: bool = False
    """Whether the queue takes encrypted tasks only."""
    life: str = ""
    """Name of the topic that hears what happens to its tasks; empty if none does."""
    limited: str = ""
    """What tasks of a key wait for beside a slot, in the words of `galley.backlog`; empty if nothing."""

    @property
    def reserved_bytes(self) -> int:
        """Disk that is set aside for the queue's streams, whether or not they hold anything."""
        tasks = self.backlog_bytes + self.later_bytes
        kept = self.record_bytes + self.dead_letter_bytes + self.object_bytes + self.output_bytes
        return tasks + kept + self.workflow_bytes


def work_stream(namespace: str, queue: str) -> str:
    """Return the name of the stream of ready tasks."""
    return name_of(StreamKind.WORK, namespace, queue)


def later_stream(namespace: str, queue: str) -> str:
    """Return the name of the stream of delayed and retried tasks."""
    return name_of(StreamKind.LATER, namespace, queue)


def records_stream(namespace: str, queue: str) -> str:
    """Return the name of the stream of records and results."""
    return name_of(StreamKind.RECORDS, namespace, queue)


def dead_stream(namespace: str, queue: str) -> str:
    """Return the name of the stream of dead letters."""
    return name_of(StreamKind.DEAD, namespace, queue)


def object_stream(namespace: str, queue: str) -> str:
    """Return the name of the stream of large inputs, results and files."""
    return name_of(StreamKind.OBJECTS, namespace, queue)


def notes_stream(namespace: str, queue: str) -> str:
    """Return the name of the stream of progress, checkpoints and output."""
    return name_of(StreamKind.NOTES, namespace, queue)


def counts_stream(namespace: str, queue: str) -> str:
    """Return the name of the stream of what workers counted."""
    return name_of(StreamKind.COUNTS, namespace, queue)


def count_subject(namespace: str, queue: str, lane: str, name: str) -> str:
    """Return where one count of a lane stands."""
    return f"galley.count.{namespace}.{queue}.{lane}.{name}"


def topics_stream(namespace: str) -> str:
    """Return the name of the stream of all topics of a namespace: their events, and who subscribes."""
    return name_of(StreamKind.TOPICS, namespace)


def event_subject(namespace: str, topic: str) -> str:
    """Return where events of a topic are published; `topic` may be a pattern."""
    return f"galley.event.{namespace}.{topic}"


def repeats(subject: str) -> bool:
    """Return whether a subject has several messages: events of a topic, and lines of an audit."""
    return subject.startswith(("galley.event.", "galley.audit."))


def audit_stream(namespace: str) -> str:
    """Return the name of the stream of who did what in a namespace."""
    return name_of(StreamKind.AUDIT, namespace)


def audit_subject(namespace: str, queue: str, writer: str) -> str:
    """Return where one kind of writer adds lines about a queue; `queue` and `writer` may be patterns."""
    return f"galley.audit.{namespace}.{queue}.{writer}"


def live_subject(namespace: str, topic: str) -> str:
    """Return where events of a topic are heard as they are stored; `topic` may be a pattern."""
    return f"galley.live.{namespace}.{topic}"


def topic_subject(namespace: str, topic: str) -> str:
    """Return where it stands what a topic is; `topic` may be a pattern."""
    return f"galley.topic.{namespace}.{topic}"


def subscriptions_subject(namespace: str, topic: str, queue: str) -> str:
    """Return where the subscriptions of a queue to a topic stand; both may be patterns."""
    return f"galley.topic.{namespace}.{topic}.{queue}"


def missed_subject(namespace: str, topic: str, queue: str) -> str:
    """Return where it stands what a queue missed of a topic; both may be patterns."""
    return f"{subscriptions_subject(namespace, topic, queue)}.missed"


def code_subscriptions_subject(namespace: str, queue: str) -> str:
    """Return where a worker says which subscriptions the code of its queue has; `queue` may be a pattern."""
    return f"galley.subscribe.{namespace}.{queue}"


def flow_stream(namespace: str, queue: str) -> str:
    """Return the name of the stream of workflows."""
    return name_of(StreamKind.FLOWS, namespace, queue)


def flow_subject(namespace: str, queue: str, flow: str) -> str:
    """Return where it stands how far a workflow is; `flow` is its id, or `*`."""
    return f"galley.flow.{namespace}.{queue}.{flow}.root"


def flow_part_subject(namespace: str, queue: str, flow: str, part: str) -> str:
    """Return where a part of a workflow stands, such as `plan.0`, `join.7`, `marks.3`; or a pattern."""
    return f"galley.flow.{namespace}.{queue}.{flow}.of.{part}"


def flows_of_queue(namespace: str, queue: str) -> str:
    """Return the pattern of all there is about workflows of a queue."""
    return f"galley.flow.{namespace}.{queue}.>"


def note_subject(address: TaskAddress, what: str) -> str:
    """Return where a note of a task stands; `what` names the note, or is a pattern of several."""
    return f"galley.note.{address.namespace}.{address.queue}.{address.kind}.{address.id}.{what}"


def noted_subject(address: TaskAddress, what: str) -> str:
    """Return where notes of a task are heard as they are stored."""
    return f"galley.noted.{address.namespace}.{address.queue}.{address.kind}.{address.id}.{what}"


def worker_end_subject(namespace: str, queue: str, worker: str) -> str:
    """Return where it stands how a worker ended. `end` is no kind of task, so no note of a task is there."""
    return f"galley.note.{namespace}.{queue}.end.{worker}"


def notes_of_queue(namespace: str, queue: str) -> str:
    """Return the pattern of all notes of a queue."""
    return f"galley.note.{namespace}.{queue}.>"


def noted_in_queue(namespace: str, queue: str) -> str:
    """Return the pattern of all notes of a queue as they are heard."""
    return f"galley.noted.{namespace}.{queue}.>"


def all_progress(namespace: str) -> str:
    """Return the pattern of the progress of all tasks of a namespace (`*`: of all), as it is heard."""
    return f"galley.noted.{namespace}.*.*.*.progress"


def parse_noted(subject: str) -> TaskAddress:
    """Return whose note was heard on a subject; its lane is not known, and given as normal.

    Raises:
        ValueError: if that is no such subject.
    """
    _, _, namespace, queue, kind, task_id, *_ = subject.split(".")
    return TaskAddress(namespace, queue, Lane.NORMAL, Kind(kind), task_id)


def shared_records_stream(namespace: str) -> str:
    """Return the name of the stream that keeps the records of all queues of a namespace, if 0.1 made it."""
    return name_of(StreamKind.RECORDS, namespace)


def shared_dead_stream(namespace: str) -> str:
    """Return the name of the stream that keeps the dead letters of all queues, if 0.1 made it."""
    return name_of(StreamKind.DEAD, namespace)


def _tail(address: TaskAddress) -> str:
    words = address.namespace, address.queue, address.lane, address.kind, address.id
    return ".".join(words)  # an f-string formats each enum, which takes twice as long


def task_subject(address: TaskAddress) -> str:
    """Return where a ready task is published."""
    return "galley.task." + _tail(address)


def in_any_lane(address: TaskAddress) -> str:
    """Return the pattern that finds a task in its work or later stream, in whatever state."""
    return f"galley.*.{address.namespace}.{address.queue}.*.{address.kind}.{address.id}"


def plan_subject(address: TaskAddress) -> str:
    """Return where a producer publishes a delayed task."""
    return "galley.plan." + _tail(address)


_LANES: Final = frozenset(Lane)
WAITING: Final = "galley.wait."
"""What subjects begin with at which tasks wait under their keys."""


def wait_subject(address: TaskAddress, digest: str) -> str:
    """Return where a task waits for the turn of its key; no consumer delivers it from there."""
    lane = f"{address.lane}-{digest}"
    return f"{WAITING}{address.namespace}.{address.queue}.{lane}.{address.kind}.{address.id}"


def waiting_of_key(turn: TaskAddress) -> str:
    """Return the pattern of the tasks of a lane that wait under a key."""
    return f"{WAITING}{turn.namespace}.{turn.queue}.{turn.lane}-{turn.id}.*.*"


def waiting_anywhere(address: TaskAddress) -> str:
    """Return the pattern that finds a task where it waits, whatever its key."""
    return f"{WAITING}{address.namespace}.{address.queue}.*.{address.kind}.{address.id}"


def waiting_of_queue(namespace: str, queue: str) -> str:
    """Return the pattern of all tasks of a queue that wait under keys."""
    return f"{WAITING}{namespace}.{queue}.>"


def turn_address(namespace: str, queue: str, lane: Lane, digest: str) -> TaskAddress:
    """Return the address of the turn of a key in a lane."""
    return TaskAddress(namespace, queue, lane, Kind.TURN, digest)


def permits_subject(namespace: str, queue: str, digest: str) -> str:
    """Return where it stands which tasks of a key run."""
    return f"galley.flow.{namespace}.{queue}.key.{digest}"


def schedule_subject(address: TaskAddress) -> str:
    """Return where a worker publishes a delayed task, so that the server keeps it until its time."""
    return "galley.schedule." + _tail(address)


def again_subject(address: TaskAddress) -> str:
    """Return where a worker publishes a retry."""
    return "galley.again." + _tail(address)


def due_subject(address: TaskAddress) -> str:
    """Return where the server puts a schedule that fired."""
    return "galley.due." + _tail(address)


def timer_subject(namespace: str, queue: str, schedule: str) -> str:
    """Return where a schedule waits for its next tick."""
    return f"galley.schedule.{namespace}.{queue}.{TIMER}.{SCHEDULED}.{schedule}"


def fired_subject(namespace: str, queue: str, schedule: str) -> str:
    """Return where the server puts a schedule whose tick has come."""
    return f"galley.due.{namespace}.{queue}.{TIMER}.{SCHEDULED}.{schedule}"


def schedule_in_any_state(namespace: str, queue: str, schedule: str = "*") -> str:
    """Return the pattern that finds a schedule, or all of a queue, in the later stream, waiting or due."""
    return f"galley.*.{namespace}.{queue}.{TIMER}.{SCHEDULED}.{schedule}"


def is_schedule(subject: str) -> bool:
    """Return whether a subject is of a schedule, waiting or due, and not of a task."""
    return subject.split(".")[4:6] == [TIMER, SCHEDULED]


def record_subject(address: TaskAddress) -> str:
    """Return where the record of a task stands."""
    return f"galley.result.{address.namespace}.{address.queue}.{address.kind}.{address.id}"


def key_subject(namespace: str, queue: str, digest: str) -> str:
    """Return where the record of a unique key stands.

    It has a word more than records of tasks, so that no pattern of those includes it.
    """
    return f"galley.result.{namespace}.{queue}.unique.key.{digest}"


def records_of_queue(namespace: str, queue: str) -> str:
    """Return the pattern of all records of a queue."""
    return f"galley.result.{namespace}.{queue}.*.*"


def done_subject(address: TaskAddress) -> str:
    """Return where waiters hear that the record of a task changed."""
    return f"galley.done.{address.namespace}.{address.queue}.{address.kind}.{address.id}"


def changes_in(namespace: str) -> str:
    """Return the pattern of all news about records of a namespace."""
    return f"galley.done.{namespace}.>"


def changes_of_queue(namespace: str, queue: str) -> str:
    """Return the pattern of all news about records of a queue."""
    return f"galley.done.{namespace}.{queue}.>"


def answer_subject(namespace: str, queue: str, token: str) -> str:
    """Return where one requester hears the workers' answers to a control request."""
    return f"galley.answer.{namespace}.{queue}.{token}"


def ready_of_lane(namespace: str, queue: str, lane: Lane) -> str:
    """Return the pattern of a lane's ready tasks."""
    return f"galley.task.{namespace}.{queue}.{lane}.>"


def later_of_lane(namespace: str, queue: str, lane: str) -> str:
    """Return the pattern of a lane's tasks that are scheduled, wait for a retry, or are due."""
    return f"galley.*.{namespace}.{queue}.{lane}.>"


def due_of_lane(namespace: str, queue: str, lane: Lane) -> str:
    """Return the pattern of a lane's tasks whose time has come."""
    return f"galley.due.{namespace}.{queue}.{lane}.>"


def tasks_of_kind(namespace: str, queue: str, kind: Kind) -> str:
    """Return the pattern of all tasks of a kind, whatever their lane, ready or for later."""
    return f"galley.*.{namespace}.{queue}.*.{kind}.*"


def dead_subject(address: TaskAddress) -> str:
    """Return where the dead letter of a task stands."""
    return f"galley.dead.{address.namespace}.{address.queue}.{address.kind}.{address.id}"


def dead_of_queue(namespace: str, queue: str) -> str:
    """Return the pattern of all dead letters of a queue."""
    return f"galley.dead.{namespace}.{queue}.>"


def objects_of_queue(namespace: str, queue: str, verb: str = ">") -> str:
    """Return the pattern of all there is about objects of a queue; `verb` is one word of what is meant."""
    return f"galley.object.{namespace}.{queue}.{verb}"


def part_subject(namespace: str, queue: str, name: str, number: int | str) -> str:
    """Return where one part of an object stands."""
    return objects_of_queue(namespace, queue, f"part.{name}.{number}")


def whole_subject(namespace: str, queue: str, name: str) -> str:
    """Return where it stands that all of an object is stored."""
    return objects_of_queue(namespace, queue, f"whole.{name}")


def leaving_subject(namespace: str, queue: str, name: str) -> str:
    """Return where it stands that an object is about to be deleted."""
    return objects_of_queue(namespace, queue, f"leaving.{name}")


def use_subject(address: TaskAddress, name: str, role: str) -> str:
    """Return where it stands that a task refers to an object."""
    tail = f"use.{name}.{role}.{address.kind}.{address.id}"
    return objects_of_queue(address.namespace, address.queue, tail)


def sweep_subject(namespace: str, queue: str) -> str:
    """Return where it stands that a process has looked for objects that no task refers to."""
    return objects_of_queue(namespace, queue, "sweep")


def control_subject(namespace: str, queue: str, verb: str) -> str:
    """Return where all workers of a queue hear a request: `cancel`, `drain` or `ping`."""
    return f"galley.ctl.{namespace}.{queue}.{verb}"


def holder_subject(namespace: str, queue: str, holder: str) -> str:
    """Return where one worker process, and no other, is asked about its attempts."""
    return f"galley.holder.{namespace}.{queue}.{holder}"


def workers_subject(namespace: str, queue: str) -> str:
    """Return where whatever starts the workers of a queue is asked why none comes up."""
    return f"galley.workers.{namespace}.{queue}"


def heartbeat_subject(namespace: str, queue: str, worker: str) -> str:
    """Return where a worker says once a second how it is."""
    return f"galley.hb.{namespace}.{queue}.{worker}"


def doorbells(namespace: str, queue: str) -> tuple[str, ...]:
    """Return the subjects on which a listener without rights on the streams hears new work."""
    return tuple(f"galley.{verb}.{namespace}.{queue}.>" for verb in ("task", "plan", "bell"))


def pauses(namespace: str, queue: str) -> str:
    """Return the subject on which the server tells that a lane of a queue was paused or resumed."""
    return f"$JS.EVENT.ADVISORY.CONSUMER.PAUSE.{work_stream(namespace, queue)}.*"


def planned(namespace: str, queue: str) -> str:
    """Return the pattern of all delayed tasks that no worker has moved to the later stream yet."""
    return f"galley.plan.{namespace}.{queue}.>"


def parse_task_subject(subject: str) -> TaskAddress:
    """Return the address in a subject of a task, due or record.

    A producer chooses the word of a waiting task that begins with its lane. One that does not is taken for
    one of the normal lane: so the task is seen and can be cancelled.

    Raises:
        ValueError: if it is none.
    """
    words = subject.split(".")
    if words[:1] != ["galley"] or len(words) not in (6, 7):
        raise ValueError(subject)
    lane = Lane.NORMAL
    if len(words) == 7 and (not subject.startswith(WAITING) or words[4].partition("-")[0] in _LANES):
        lane = Lane(words[4].partition("-")[0])
    return TaskAddress(words[2], words[3], lane, Kind(words[-2]), words[-1])


def parse_ack_subject(subject: str) -> list[str]:
    """Return stream, consumer, times delivered, sequence in the stream and at the consumer, and what follows.

    They stand in the reply subject of a delivery. A server may put its domain and account before them.
    """
    # $JS.ACK.[domain.account.]stream.consumer.delivered.sequence.consumer-sequence.time.pending[.token]
    words = subject.split(".")
    return words[2:] if len(words) == 9 else words[4:]
