"""Mistakes in what the other lists leave out: retries, child processes, rights, consent, expiry, collecting."""

from typing import Final

from tests.mutants.mutant import Mutant

RETRY: Final = "tests/unit/galley/test_retry.py"
HISTORY: Final = "tests/unit/galley/test_history.py"
RUNNERS: Final = "tests/integration/galley_worker/"
FUNCTIONS: Final = f"{RUNNERS}test_functions.py"
BLAME: Final = "tests/unit/galley_worker/runners/test_blame.py"
ISOLATION: Final = f"{RUNNERS}test_isolation.py"
ASYNC_QUEUE: Final = f"{RUNNERS}test_async_queue.py"
DESCENDANTS: Final = "tests/unit/galley_worker/runners/test_descendants.py"
DRAIN: Final = f"{RUNNERS}test_drain.py"
FLEET: Final = "tests/conformance/test_process_fleet.py"
ROLES: Final = "tests/unit/galley_operator/credentials/test_queue_roles.py"
RIGHTS: Final = "tests/integration/credentials/test_rights.py"
RENEWAL: Final = "tests/unit/galley/broker/test_identity.py"
QUEUES: Final = "tests/unit/galley_operator/queues/test_queues.py"
CONSENT: Final = "tests/unit/galley_operator/queues/test_consent.py"
EXPIRY: Final = "tests/unit/galley_operator/status/test_expiry.py"
INTERRUPTED: Final = "tests/integration/galley/test_interrupted.py"
SAME_ID: Final = "tests/integration/galley/test_same_id.py"
LEASES: Final = "tests/unit/galley_worker/test_leases.py"
HEALTH: Final = "tests/unit/galley_worker/test_health.py"

_SDK: Final = "sdk/galley/"
_WORKER: Final = "worker-image/galley_worker/"
_OPERATOR: Final = "operator/galley_operator/"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = path.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{path}.py", old, new, breaks, tests, survives)


SDK: Final = (
    _of(
        f"{_SDK}retry",
        "the first wait is doubled",
        "min(failures - 1, 60)",
        "min(failures, 60)",
        "a task waits twice as long as its policy says",
        RETRY,
    ),
    _of(
        f"{_SDK}retry",
        "an attempt more than allowed",
        "history.errors >= self.attempts:",
        "history.errors > self.attempts:",
        "a task with one attempt runs twice",
        RETRY,
    ),
    _of(
        f"{_SDK}history",
        "the oldest attempts are kept",
        "(*self.attempts, short)[-KEPT_ATTEMPTS:]",
        "(*self.attempts, short)[:KEPT_ATTEMPTS]",
        "the last error of a task cannot be seen",
        HISTORY,
    ),
    _of(
        f"{_SDK}history",
        "a crash is an error",
        'EndedBy.CRASH: {"crashes": self.crashes + 1},',
        'EndedBy.CRASH: {"errors": self.errors + 1},',
        "a task that kills its workers is tried as often as one that fails",
        HISTORY,
    ),
    _of(
        f"{_SDK}broker/records",
        "no record expires",
        "        headers[topology.TTL] = str(keep_seconds)\n",
        "        pass\n",
        "records fill the disk",
        f"{RUNNERS}test_retention.py",
    ),
    _of(
        f"{_SDK}broker/identity",
        "credentials that do not parse end a connection",
        "            return False  # those we have are good until they end\n",
        "            raise\n",
        "a Secret that is being written disconnects a worker",
        RENEWAL,
    ),
    _of(
        f"{_SDK}broker/identity",
        "older credentials are newer",
        "return found.claims.exp == 0 or found.claims.exp > present.claims.exp > 0",
        "return True",
        "a connection is made again and again",
        RENEWAL,
    ),
    _of(
        f"{_SDK}batch",
        "what a silent broker may have stored was refused",
        "BrokerUnreachable | BrokerSilent | ClientUnusable):\n            self._unknown",
        "BrokerUnreachable | ClientUnusable):\n            self._unknown",
        "a caller submits again what is stored",
        INTERRUPTED,
        "tests/integration/galley/test_no_room.py",
    ),
    _of(
        f"{_SDK}batch",
        "what is being sent again was refused if submitting is cancelled meanwhile",
        "        self._unknown[place] = handle  # what is known if this is cancelled\n",
        "",
        "a caller submits again what is stored",
        "tests/unit/galley/broker/test_publish.py",
    ),
    _of(
        f"{_SDK}handle",
        "another task's result is one's own",
        "            check_same_work(self.address, record.handler, record.digest, self.envelope)\n",
        "            pass\n",
        "a caller gets the result of other input",
        SAME_ID,
    ),
)

RUNNING: Final = (
    _of(
        f"{_WORKER}runners/pool",
        "what had not begun in a dead child is lost",
        "        self._requeue([execution for execution in left if execution not in begun])\n",
        "",
        "tasks hang in a worker until its end",
        FUNCTIONS,
    ),
    _of(
        f"{_WORKER}runners/child/concurrent",
        "all async tasks of a child run at once",
        "while self._queued and len(self._running) < self._most:",
        "while self._queued:",
        "spec.worker.concurrency is exceeded",
        ASYNC_QUEUE,
    ),
    _of(
        f"{_WORKER}runners/child/concurrent",
        "an async task inherits the context of the one before",
        ", context=self._context.copy()",
        "",
        "a task sees variables of another task",
        ASYNC_QUEUE,
    ),
    _of(
        f"{_WORKER}runners/pool",
        "a work that was given back counts as asked",
        "execution.started_at = execution.asked_at = None",
        "execution.started_at = None",
        "a process is killed that answers",
        ASYNC_QUEUE,
    ),
    _of(
        f"{_WORKER}runners/pool",
        "a child is replaced one task late",
        "            or process.sent >= self._last\n            or (",
        "            or process.sent > self._last\n            or (",
        "recycle.tasks is exceeded",
        ISOLATION,
    ),
    _of(
        f"{_WORKER}runners/child/descendants",
        "what a process starts while it is killed stays",
        " and children_of(os.getpid()) - self._kept <= left:",
        ":",
        "a process of a task outlives it",
        DESCENDANTS,
    ),
    _of(
        f"{_WORKER}runners/pool",
        "no child is too large",
        "process.memory() > limit",
        "process.memory() > limit * 1000",
        "a leak takes the pod's memory",
        ISOLATION,
    ),
    _of(
        f"{_WORKER}runners/process",
        "the work begun last had not begun",
        "if number <= last]",
        "if number < last]",
        "a handler that kills its process is run again without end",
        FUNCTIONS,
    ),
    _of(
        f"{_WORKER}runners/blame",
        "a killed neighbour crashed",
        "        elif execution is culprit and not ours:\n",
        "        elif execution is culprit:\n",
        "a task pays for another one's timeout",
        BLAME,
    ),
    _of(
        f"{_WORKER}presence",
        "a drain never ends",
        "            if self._drained_until and time.monotonic() >= self._drained_until:\n",
        "            if False:\n",
        "a worker that was to go and stayed takes no task again",
        f"{FLEET}::test_process_fleet[a_drain_ends_by_itself]",
    ),
    _of(
        f"{_WORKER}presence",
        "all drain when one is asked",
        "                if self._who.name not in request.workers:\n                    return None\n",
        "",
        "scaling in by one stops a queue",
        f"{FLEET}::test_process_fleet[a_drained_worker_takes_no_task]",
        f"{FLEET}::test_process_fleet[only_the_drained_are_removed]",
    ),
    _of(
        f"{_WORKER}presence",
        "busy workers say that they are idle",
        "slots.concurrency, slots.taken, draining",
        "slots.concurrency, 0, draining",
        "a worker that runs a task goes",
        f"{FLEET}::test_process_fleet[what_a_worker_runs_is_seen_and_gone_when_it_ended]",
    ),
    _of(
        f"{_WORKER}hands",
        "the end of the grace period cuts nothing off",
        '        self._attempts.roster.cut("the worker is shutting down")\n',
        "",
        "long tasks wait for the end of a lease at each rollout",
        DRAIN,
    ),
    _of(
        f"{_WORKER}leases",
        "what came during a sleep counts from its end",
        "        since = now if self._asleep_since is None else self._asleep_since\n",
        "        since = now\n",
        "two workers run one attempt",
        LEASES,
    ),
    _of(
        f"{_WORKER}health",
        "a worker that hears nothing is alive",
        "        worker.silent_seconds <= live_seconds,\n",
        "        True,\n",
        "a worker that hangs is never restarted",
        HEALTH,
    ),
)

CONTROL: Final = (
    _of(
        f"{_SDK}broker/permissions",
        "producers submit declared tasks",
        '    tail = f"{namespace}.{queue}.*.{Kind.DIRECT}.*"\n',
        '    tail = f"{namespace}.{queue}.*.*.*"\n',
        "a producer makes tasks in the operator's name",
        RIGHTS,
    ),
    _of(
        f"{_SDK}broker/permissions",
        "managers purge any stream",
        '        *(f"$JS.API.STREAM.PURGE.{stream}" for stream in _own_streams(namespace, queue)),\n',
        '        "$JS.API.STREAM.PURGE.*",\n',
        "a manager of one queue empties all others",
        RIGHTS,
    ),
    _of(
        f"{_SDK}broker/permissions",
        "records of all queues can be read",
        '.galley.result.{namespace}.{queue}.>"\n        for stream',
        '.galley.result.{namespace}.>"\n        for stream',
        "a queue reads the results of another one",
        RIGHTS,
    ),
    _of(
        f"{_OPERATOR}credentials/queue_roles",
        "credentials are renewed at their end",
        "now >= begin + (end - begin) * RENEW_AFTER",
        "now >= end",
        "clients are disconnected once a week",
        ROLES,
    ),
    _of(
        f"{_OPERATOR}credentials/queue_roles",
        "credentials with other rights will do",
        '    if claims.get("nats") != account.rights(permissions):\n',
        "    if False:\n",
        "an upgrade changes no rights for a week",
        ROLES,
    ),
    _of(
        f"{_OPERATOR}credentials/queue_roles",
        "credentials signed by anyone will do",
        '    if claims is None or _public_key_of(found.seed) != claims.get("sub"):\n',
        '    if claims is not None and _public_key_of(found.seed) != claims.get("sub"):\n',
        "credentials of lost keys stay",
        ROLES,
    ),
    _of(
        f"{_OPERATOR}queues/consent",
        "an optional Secret needs no consent",
        "            if optional and problem == _NOT_THERE:\n",
        "            if optional and problem:\n",
        "a queue mounts a Secret whose owner did not consent",
        CONSENT,
    ),
    _of(
        f"{_SDK}broker/ration",
        "a ration has no end",
        "            await subscription.unsubscribe(limit=window)\n",
        "            pass\n",
        "one tenant's heartbeats have the operator cut off",
        "tests/unit/galley/broker/test_ration.py",
    ),
    _of(
        f"{_SDK}broker/ration",
        "a ration counts no bytes",
        "self._count >= self._ration.messages or self._bytes >= self._ration.bytes\n",
        "self._count >= self._ration.messages\n",
        "one tenant's large heartbeats have the operator cut off",
        "tests/unit/galley/broker/test_ration.py",
    ),
    _of(
        f"{_OPERATOR}queues/reconcile",
        "pods name Secrets that are missing",
        "without_secrets(with_resources(queue, self._settings.worker_resources), missing),\n",
        "with_resources(queue, self._settings.worker_resources),\n",
        "the kubelet gives a Secret that is made later to pods, whether or not its owner consents",
        QUEUES,
    ),
    _of(
        f"{_OPERATOR}cluster/ownership",
        "any value of the label is consent",
        '.get(USABLE_LABEL) == "allowed"',
        ".get(USABLE_LABEL) is not None",
        "`galley.dev/workers: denied` allows",
        CONSENT,
    ),
    _of(
        f"{_OPERATOR}status/expiry",
        "deleted before it is remembered",
        "        await self._remember(address, metadata.uid)\n",
        "",
        "a Task that is applied again after its TTL runs again",
        EXPIRY,
    ),
    _of(
        f"{_OPERATOR}status/expiry",
        "whatever has the name is deleted",
        "metadata.namespace, metadata.name, uid=metadata.uid)",
        "metadata.namespace, metadata.name)",
        "a Task made a moment ago is deleted",
        EXPIRY,
    ),
    _of(
        f"{_OPERATOR}status/expiry",
        "failed Tasks go like others",
        "seconds = kept.failed if task.status.phase == Phase.FAILED else kept.ended",
        "seconds = kept.ended",
        "what failed over the weekend cannot be looked at",
        EXPIRY,
    ),
    _of(
        f"{_OPERATOR}status/expiry",
        "what Argo CD keeps is deleted",
        "    if seconds is None and not kept_by_gitops(task.metadata.labels, task.metadata.annotations):\n",
        "    if seconds is None:\n",
        "a Task is deleted and applied again without end",
        EXPIRY,
    ),
)

MUTANTS: Final = (*SDK, *RUNNING, *CONTROL)
