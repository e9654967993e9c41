"""Mistakes in what is stored beside tasks: objects, unique keys, notes, redrives and cached results."""

from typing import Final

from tests.mutants.mutant import Mutant

_SDK: Final = "sdk/galley/"
_WORKER: Final = "worker-image/galley_worker/"
OBJECTS: Final = "tests/unit/galley/broker/test_objects.py"
CACHE: Final = "tests/unit/galley/objects/test_node_cache.py"
FILES: Final = "tests/unit/galley/objects/test_file.py"
UNIQUE: Final = "tests/unit/galley_worker/test_uniqueness.py"
NOTEBOOK: Final = "tests/unit/galley_worker/test_notebook.py"
TICKER: Final = "tests/unit/galley_worker/test_ticker.py"
REDRIVE: Final = "tests/integration/galley_worker/test_redrive.py"
COLLECTOR: Final = "tests/unit/galley/broker/test_object_collector.py"
REWRITE: Final = "tests/unit/galley/backup/test_rewrite.py"
RESULTS: Final = "tests/unit/galley/test_cached.py"
REDRIVES: Final = "tests/unit/galley_worker/test_redrives.py"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = path.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{path}.py", old, new, breaks, tests, survives)


STORED: Final = (
    _of(
        f"{_SDK}broker/objects",
        "what fills the store is sent",
        "        if used + size + parts * _OVERHEAD > limit:\n",
        "        if False:\n",
        "an upload that cannot fit takes the room of others for an hour",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/objects",
        "what is leaving is there",
        "        if await self._last(place, topology.leaving_subject(*place, name)) is not None:\n            return None\n",
        "",
        "an object is deleted under the hands of a new task",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/objects",
        "a replica that is behind has lost a part",
        "_LOOKS: Final = 4\n",
        "_LOOKS: Final = 1\n",
        "a task fails whose object is there",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/objects",
        "a lost answer is a refusal",
        "            elif not ack.unanswered:\n                raise await self._refused(place, len(body), ack, subject)",
        "            else:\n                raise await self._refused(place, len(body), ack, subject)",
        "a restart of the broker fails each upload",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/objects",
        "parts larger than any are passed on",
        "                if len(found) > PART:\n",
        "                if False:\n",
        "who may write to the stream fills the memory of readers",
        OBJECTS,
        survives="size and digest are compared at the end, too: this bounds memory",
    ),
    _of(
        f"{_SDK}objects/store",
        "looks before it refers",
        "        await self._stream.use(address, digest, role)\n        found = await self._stream.there(place, digest)\n",
        "        found = await self._stream.there(place, digest)\n        await self._stream.use(address, digest, role)\n",
        "an object that was found goes before the task refers to it",
        OBJECTS,
    ),
    _of(
        f"{_SDK}objects/store",
        "any bytes are the right ones",
        "        if found.hexdigest() != reference.digest:\n",
        "        if False:\n",
        "a handler works on damaged data",
        OBJECTS,
    ),
    _of(
        f"{_SDK}objects/store",
        "an object of another store is there",
        "        if found is not None and found.store == self._store:\n",
        "        if found is not None:\n",
        "a task refers to bytes that are in no store it names",
        OBJECTS,
    ),
    _of(
        f"{_SDK}objects/store",
        "what was sealed once is there for good",
        "        if before is not None and await self.refer(address, before, role):\n",
        "        if before is not None:\n",
        "an encrypted object that was deleted is referred to",
        OBJECTS,
    ),
    _of(
        f"{_SDK}objects/content",
        "a file that grows is stored",
        "        if self._seen is not None and state_of(file) != self._seen:\n",
        "        if False:\n",
        "what is stored was never the content of the file",
        FILES,
        survives="the digest of what was read the second time is compared, too",
    ),
)

SWEPT: Final = (
    _of(
        f"{_SDK}broker/object_sweep",
        "results go before their record is there",
        "            return record is not None or await self._age(subject) < GRACE_SECONDS\n",
        "            return record is not None\n",
        "a large result is gone when its task ends",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/object_sweep",
        "leaves at once",
        ">= LEAVING_SECONDS:",
        ">= 0:",
        "a producer that found an object loses it",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/object_sweep",
        "dead letters keep nothing",
        "        if await self._waits(address) or await self._dead(address):\n",
        "        if await self._waits(address):\n",
        "a redriven task has no input",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/object_sweep",
        "what is used again goes all the same",
        "            if await self._used(uses.get(name, ())):\n                await self._purge",
        "            if False:\n                await self._purge",
        "a task loses its input while it waits",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/object_sweep",
        "tasks that run keep nothing",
        "        if record is not None and not record.done:\n            return True\n",
        "        if record is not None and not record.done:\n            return False\n",
        "a task loses its input while it runs",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/object_sweep",
        "parts stay",
        '        for verb in ("use", "whole", "part"):\n',
        '        for verb in ("use", "whole"):\n',
        "the stream of objects is full of bytes that nothing names",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/object_sweep",
        "objects of unknown buckets are forgotten",
        "        if store and not await self._remove(store, name):\n            return False\n",
        "",
        "objects stay in a bucket for good",
        OBJECTS,
    ),
    _of(
        f"{_SDK}broker/object_sweep",
        "all workers look",
        'header_block({topology.EXPECTED_SEQUENCE: "0", topology.TTL',
        "header_block({topology.TTL",
        "each of 100 workers lists all objects every two minutes",
        OBJECTS,
        survives="the stream takes one message for each subject anyway",
    ),
)

CACHED: Final = (
    _of(
        f"{_SDK}objects/node_cache",
        "a file that was written to is good",
        "        if state.st_size == size and state.st_mtime_ns == _CHANGED_AT:\n",
        "        if state.st_size == size:\n",
        "one handler changes what others read",
        CACHE,
    ),
    _of(
        f"{_SDK}objects/node_cache",
        "all processes fetch",
        "            while not _taken(lock):  # noqa",
        "            while False:  # noqa",
        "50 tasks fetch one model 50 times",
        CACHE,
    ),
    _of(
        f"{_SDK}objects/node_cache",
        "no limit",
        "        over = sum(size for _, size, _ in found) - self.limit\n",
        "        over = 0\n",
        "the cache fills the disk",
        CACHE,
    ),
    _of(
        f"{_SDK}objects/node_cache",
        "the latest go first",
        "sorted(found, key=lambda each: each[0])",
        "sorted(found, key=lambda each: -each[0])",
        "what is needed all the time is fetched all the time",
        CACHE,
    ),
    _of(
        f"{_SDK}objects/node_cache",
        "a folder of another user will do",
        "            if self.folder.stat().st_uid != os.getuid():\n",
        "            if False:\n",
        "a user changes the files of another one's tasks",
        CACHE,
    ),
    _of(
        f"{_SDK}objects/node_cache",
        "those that live are removed, too",
        "                if number is not None and _taken(number):\n",
        "                if number is not None:\n",
        "a worker that starts takes the files of one that runs",
        CACHE,
    ),
)

KEYS: Final = (
    _of(
        f"{_SDK}unique_key",
        "replaced tasks begin",
        "    if task in key.begun or key.epoch != wanted.epoch:\n",
        "    if True:\n",
        "a task and the one that replaced it both run",
        UNIQUE,
    ),
    _of(
        f"{_SDK}unique_key",
        "a task that began is forgotten",
        "begun=_listed(key.begun, task)\n",
        "begun=key.begun\n",
        "a task whose worker died counts as replaced",
        UNIQUE,
    ),
    _of(
        f"{_SDK}unique_key",
        "a started task keeps its key",
        "    if key.state is KeyState.ENDED or (key.state is KeyState.BEGUN and key.until is Until.STARTED):\n        return False\n",
        "    if key.state is KeyState.ENDED:\n        return False\n",
        "a key that is free once its task has started is refused",
        UNIQUE,
    ),
    _of(
        f"{_SDK}unique_key",
        "a period has no end",
        "        return now < key.ends_at\n",
        "        return True\n",
        "a key is blocked for good",
        UNIQUE,
        survives="the record of the key expires at the end of its period",
    ),
    _of(
        f"{_WORKER}uniqueness",
        "no key is released",
        "        if wanted.until is not Until.FINISHED:\n            return\n",
        "        return\n",
        "records of keys fill the stream",
        UNIQUE,
    ),
    _of(
        f"{_WORKER}uniqueness",
        "another one's key is released",
        "            if found is not None and found.record.task == address.id:\n",
        "            if found is not None:\n",
        "two tasks of a key run at once",
        UNIQUE,
    ),
    _of(
        f"{_WORKER}uniqueness",
        "begins before it is written",
        '        return "" if ack.stored else None\n',
        '        return ""\n',
        "a task and the one that replaced it both run",
        UNIQUE,
    ),
    _of(
        f"{_SDK}broker/unique_keys",
        "a lost answer lost the race",
        "                return found.sequence if found is not None and found.record == record else None\n",
        "                return None\n",
        "a task is refused since it is there itself",
        UNIQUE,
        survives="the producer looks again and finds its own claim",
    ),
)

NOTES: Final = (
    _of(
        f"{_WORKER}notebook",
        "each value is written",
        "            await asyncio.sleep(PAUSE_SECONDS)\n",
        "            await asyncio.sleep(0)\n",
        "a handler that reports in a loop floods the broker",
        NOTEBOOK,
    ),
    _of(
        f"{_WORKER}notebook",
        "the last words are lost",
        "        if page is None or page.empty:\n            return\n        try:\n",
        "        if page is not None:\n            return\n        try:\n",
        "the end of the output cannot be seen",
        NOTEBOOK,
    ),
    _of(
        f"{_WORKER}notebook",
        "output has no limit",
        "        if page.kept > KEPT_BYTES:\n            return\n",
        "",
        "one attempt deletes the checkpoints of others",
        NOTEBOOK,
    ),
    _of(
        f"{_WORKER}notebook",
        "a checkpoint is never done",
        "                page.checkpoint = None if page.checkpoint is checkpoint else page.checkpoint\n",
        "",
        "a checkpoint is written again and again",
        NOTEBOOK,
    ),
)

REDRIVEN: Final = (
    _of(
        f"{_SDK}redrive",
        "what ran since is run again",
        "    return record.outcome is not Outcome.FAILED or record.attempt > kept.letter.attempt\n",
        "    return False\n",
        "a task that succeeded runs again",
        REDRIVE,
    ),
    _of(
        f"{_SDK}redrive",
        "a redrive has no fence",
        "stored.sequence if stored is not None else 0\n",
        "0\n",
        "two redrives of one failure run it twice, or not at all",
        REDRIVE,
    ),
    _of(
        f"{_SDK}redrive",
        "the letter stays",
        "        await dead_letters.drop(self._broker, kept)\n        return Redriven.QUEUED\n",
        "        return Redriven.QUEUED\n",
        "a task that runs counts as dead",
        REDRIVE,
    ),
    _of(
        f"{_SDK}redrive",
        "old failures count",
        "history=History(attempts=kept.letter.history.attempts)",
        "history=kept.letter.history",
        "a redriven task is buried at its first error",
        REDRIVES,
    ),
    _of(
        f"{_SDK}broker/dead_letters",
        "a later letter is dropped, too",
        '"filter": topology.dead_subject(kept.address), "seq": kept.sequence + 1}',
        '"filter": topology.dead_subject(kept.address)}',
        "a task that failed again is lost",
        REDRIVES,
    ),
)

TICKED: Final = (
    _of(
        f"{_WORKER}ticker",
        "a deleted schedule fires",
        "        if schedule.gone:\n",
        "        if False:\n",
        "deleting does not stop a schedule",
        TICKER,
    ),
    _of(
        f"{_WORKER}ticker",
        "a suspended schedule has a next tick",
        "        at = None if moved.suspended else due.next_at\n",
        "        at = due.next_at\n",
        "a suspended schedule is delivered at each tick",
        TICKER,
    ),
    _of(
        f"{_WORKER}ticker",
        "a schedule that was changed is stored again and again",
        "            if ack.stored or ack.code == WRONG_SEQUENCE:\n",
        "            if ack.stored:\n",
        "a worker hangs on a schedule that was changed",
        TICKER,
    ),
    _of(
        f"{_WORKER}ticker",
        "what waits has ended",
        "        if await stored.waits(self._broker, address):\n            return True\n",
        "",
        "ticks pile up behind a task that waits",
        TICKER,
    ),
)

COLLECTED: Final = (
    _of(
        f"{_SDK}broker/object_collector",
        "others' objects are collected",
        "                and metadata.get(topology.OWNER_KEY) == self._install\n",
        "",
        "an installation deletes the objects of another one",
        COLLECTOR,
    ),
    _of(
        f"{_SDK}broker/object_collector",
        "namespaces of others are collected",
        "                and self._is_ours(namespace)\n",
        "",
        "an operator deletes objects in namespaces it does not serve",
        COLLECTOR,
    ),
    _of(
        f"{_SDK}broker/object_collector",
        "no queue is left alone",
        "min(2 * rest + 1, LONGEST_REST)",
        "0",
        "an operator looks through all objects of all queues every five minutes",
        COLLECTOR,
    ),
    _of(
        f"{_SDK}broker/object_sweep",
        "objects that are being restored go",
        "        if topology.RESTORING_KEY in (",
        "        if False and topology.RESTORING_KEY in (",
        "a worker deletes the large data of a restore under way",
        COLLECTOR,
    ),
    _of(
        f"{_SDK}backup/rewrite",
        "a restored schedule runs what it ran before",
        "decided=now if decided is None else max(decided, now))",
        "decided=decided)",
        "a nightly mail is sent twice after a restore",
        REWRITE,
    ),
    _of(
        f"{_SDK}backup/rewrite",
        "a restored schedule is that of the old object",
        'uid="", generation=0, progress=progress',
        "progress=progress",
        "the operator deletes each schedule that was restored",
        REWRITE,
    ),
    _of(
        f"{_SDK}objects/node_cache",
        "all queues share what is cached",
        '(f"{self._queue}.{digest}" if self._queue else digest)',
        "digest",
        "a task reads the file of another queue by its digest",
        CACHE,
    ),
)

USED_AGAIN: Final = (
    _of(
        f"{_SDK}broker/cached_tasks",
        "a period begins with nothing",
        "    if await publisher.look(address) is None:\n",
        "    if False:\n",
        "a result is used for half of the time that was asked for",
        RESULTS,
    ),
    _of(
        f"{_SDK}broker/cached_tasks",
        "old results count",
        "        if known.submitted_at is None or known.submitted_at <= entry.since:\n",
        "        if known.submitted_at is None:\n",
        "a result is used for twice the time that was asked for",
        RESULTS,
    ),
    _of(
        f"{_SDK}broker/cached_tasks",
        "a failure of the period before counts",
        "        if stored is None or stored.record.outcome in (None, Outcome.SUCCEEDED):\n            return known\n",
        "        return known\n",
        "a failure is the answer for an hour",
        RESULTS,
    ),
)

MUTANTS: Final = (*STORED, *SWEPT, *CACHED, *COLLECTED, *USED_AGAIN, *KEYS, *NOTES, *REDRIVEN, *TICKED)
