"""Mistakes in admitting Tasks, in statuses, queues of keys and leadership."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "operator/galley_operator/"
_UNIT: Final = "tests/unit/galley_operator/"
WRITER: Final = f"{_UNIT}status/test_writer.py"
PACE: Final = f"{_UNIT}status/test_pace.py"
KEYS: Final = f"{_UNIT}test_key_queue.py"
INTAKE: Final = f"{_UNIT}intake/test_look.py"
LEADER: Final = f"{_UNIT}test_leadership.py"
SERVES: Final = f"{_UNIT}test_claims.py"


def _of(module: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = module.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{_ROOM}{module}.py", old, new, breaks, tests, survives)


INTAKE_: Final = (
    _of(
        "intake/broker_tasks",
        "publishes are not flagged",
        "envelope, chosen_id=True)",
        "envelope)",
        "an operator that crashed runs a task twice",
        INTAKE,
    ),
    _of(
        "intake/look",
        "another's task is one's own",
        "        if not added:\n",
        "        if False:\n",
        "a Task has the outcome of another's work",
        INTAKE,
    ),
    _of(
        "intake/look",
        "earlier work goes on",
        "            if step.earlier.unfinished:\n",
        "            if False:\n",
        "the work of a deleted Task runs beside that of the new one",
        INTAKE,
    ),
    _of(
        "intake/look",
        "the earlier record stays",
        "            await self._broker.forget(address)\n",
        "            pass\n",
        "a new Task has the outcome of the one before",
        INTAKE,
    ),
    _of(
        "intake/look",
        "a full queue is no reason to wait",
        '        case QueueFull():\n            return Pending(error.reason, f"{error}; {_AGAIN}", Until.ROOM)\n',
        '        case QueueFull():\n            return Pending(error.reason, f"{error}; {_AGAIN}", Until.LATER)\n',
        "a full queue is tried with growing pauses, and nothing says so",
        INTAKE,
    ),
    _of(
        "intake/departures",
        "what is there is cancelled",
        '        return bool(present["metadata"]["uid"] == departed.uid)\n',
        "        return False\n",
        "a task is cancelled when it ends",
        INTAKE,
    ),
    _of(
        "intake/departures",
        "another of that name keeps it going",
        '        return bool(present["metadata"]["uid"] == departed.uid)\n',
        "        return True\n",
        "the work of a deleted Task runs on",
        INTAKE,
    ),
    _of(
        "intake/departures",
        "the next one's work is cancelled",
        'or trace.uid not in ("", departed.uid):',
        "or False:",
        "a new Task is cancelled for the one before",
        INTAKE,
    ),
    _of(
        "intake/departures",
        "an outcome is cancelled",
        "        if not trace.unfinished or trace",
        "        if trace",
        "ended tasks are cancelled again and again",
        INTAKE,
        survives="the record of an ended task is not replaced; it costs a read",
    ),
    _of(
        "intake/departures",
        "forgotten before it is done",
        "        for each in list(departed.values()):\n",
        "        for each in list(departed.values()):\n            self._departed.pop(key, None)\n",
        "a cancel that failed is not tried again",
        INTAKE,
    ),
    _of(
        "intake/look",
        "an older operator's work is not looked for",
        "        if trace.empty and task.unsure:\n",
        "        if False:\n",
        "an upgrade runs tasks twice",
        INTAKE,
    ),
    _of(
        "intake/look",
        "the spec of another Task of that name",
        '                if present["metadata"]["uid"] != task.uid:\n',
        "                if False:\n",
        "a deleted Task runs with the spec of the next one",
        INTAKE,
    ),
)

KEYS_: Final = (
    _of(
        "key_queue",
        "a change while one works is lost",
        "            self._again.add(key)\n",
        "            pass\n",
        "a change is seen at the next sweep, if ever",
        KEYS,
    ),
    _of(
        "key_queue",
        "two work on one key",
        "        if key in self._in_hand:\n",
        "        if False:\n",
        "two writes race",
        KEYS,
    ),
    _of(
        "key_queue",
        "the patient first",
        "            for line in (self._urgent, self._patient):\n",
        "            for line in (self._patient, self._urgent):\n",
        "a listing of 20,000 keeps what people do now waiting",
        KEYS,
    ),
    _of(
        "key_queue",
        "later never comes",
        "        while self._later and self._later[0][0] <= now:\n",
        "        while False:\n",
        "what failed is never tried again",
        KEYS,
    ),
    _of(
        "key_queue",
        "pauses do not grow",
        "* 2.0 ** min(failures - 1, 30))",
        ")",
        "what cannot work is tried ten times a second",
        KEYS,
    ),
    _of(
        "key_queue",
        "pauses grow without bound",
        "        pause = min(self._longest, ",
        "        pause = max(0.0, ",
        "what failed once too often is tried in years",
        KEYS,
    ),
    _of(
        "key_queue",
        "failures are remembered after a success",
        "        self._failures.pop(key, None)\n",
        "        pass\n",
        "one failure slows a key for good",
        KEYS,
    ),
)

WRITER_: Final = (
    _of(
        "status/writer",
        "a status that is not final replaces one that is",
        "        if before is not None and before.status.final and not status.final:\n            return\n",
        "",
        "a task that has ended runs forever",
        WRITER,
    ),
    _of(
        "status/writer",
        "what stands there is written again",
        "            if entry.status.shown == task.shown:\n",
        "            if False:\n",
        "the API server is written to for nothing",
        WRITER,
    ),
    _of(
        "status/writer",
        "a refusal for want of room is the end",
        "            self._pace.refused(refusal.retry_after)\n            self._again(entry, 0.0)\n",
        "            self._pace.refused(refusal.retry_after)\n",
        "a status is lost",
        WRITER,
    ),
    _of(
        "status/writer",
        "no slower when refused",
        "            self._pace.refused(refusal.retry_after)\n",
        "",
        "a loaded API server is loaded more",
        WRITER,
    ),
    _of(
        "status/writer",
        "a conflict is the end",
        "            self._again(entry, pause if await self._reread(entry) else None)\n",
        "            pass\n",
        "a status is lost",
        WRITER,
    ),
    _of(
        "status/writer",
        "a status goes into the next object of that name",
        '        return bool(metadata["uid"] == task.uid)\n',
        "        return True\n",
        "a new Task has the outcome of a deleted one",
        WRITER,
    ),
    _of(
        "status/writer",
        "an error is the end",
        '            log.info("status not written", extra=_about(task, error))\n            self._again(entry, self._backoff.after_failure(task.uid))\n',
        '            log.info("status not written", extra=_about(task, error))\n',
        "a status is lost",
        WRITER,
    ),
    _of(
        "status/writer",
        "what cannot be stored is tried as it is",
        "            entry.status = without_result(entry.status) if entry.refused == 1 else bare(entry.status)\n",
        "",
        "a task whose result is refused never ends",
        WRITER,
    ),
    _of(
        "status/writer",
        "refusals do not halve",
        "            self._window = max(1.0, self._window / 2)\n",
        "            pass\n",
        "no slower",
        PACE,
    ),
    _of(
        "status/writer",
        "no pause",
        "        self._paused_until = max(self._paused_until, self._clock() + retry_after)\n",
        "        pass\n",
        "the server is asked at once",
        PACE,
    ),
)

LEADER_: Final = (
    _of(
        "leadership",
        "takes what is held",
        '        if holder not in ("", self._identity) and not self._expired:\n',
        "        if False:\n",
        "two lead",
        LEADER,
    ),
    _of(
        "leadership",
        "a lease never ends",
        "        return self._clock() - self._seen_at > min(float(seconds), _LONGEST_SECONDS)\n",
        "        return False\n",
        "no replica leads after a crash",
        LEADER,
    ),
    _of(
        "leadership",
        "a renewal is not seen",
        '        if version != self._seen.get("metadata", {}).get("resourceVersion"):\n',
        "        if not self._seen:\n",
        "two lead",
        LEADER,
    ),
    _of(
        "leadership",
        "leads on without a renewal",
        "            if left <= 0:\n",
        "            if False:\n",
        "two lead",
        LEADER,
    ),
    _of(
        "leadership",
        "counts from the answer",
        "            self._renewed_at = began\n",
        "            self._renewed_at = self._clock()\n",
        "two lead for a moment",
        LEADER,
    ),
    _of(
        "leadership",
        "a conflict is a success",
        "            return self._take_in(await self._cluster.get(LEASES, self._namespace, self._name), began)\n",
        "            return True\n",
        "two lead",
        LEADER,
    ),
    _of(
        "leadership",
        "a duration of others is believed",
        "> min(float(seconds), _LONGEST_SECONDS)\n",
        "> float(seconds)\n",
        "a user keeps a namespace from being served for 68 years with one write",
        SERVES,
    ),
    _of(
        "claims",
        "a claim of another is not seen",
        "            elif self.holder or self._clock()",
        "            elif self._clock()",
        "two serve a namespace",
        SERVES,
    ),
    _of(
        "claims",
        "without an answer the namespace is served",
        "            return False\n        self.holder =",
        "            return True\n        self.holder =",
        "two serve a namespace",
        SERVES,
    ),
    _of(
        "serving",
        "parts go on without the claim",
        "                working.cancel()\n",
        "",
        "two serve a namespace",
        "tests/unit/galley_operator/test_serving.py",
    ),
    _of(
        "serving",
        "parts begin and end without a pause",
        "            await asyncio.sleep(pause)\n",
        "",
        "a user of one namespace costs all others",
        "tests/unit/galley_operator/test_serving.py",
    ),
    _of(
        "leadership",
        "released and still leading",
        "        self.leading = False\n        spec = {",
        "        spec = {",
        "two lead",
        LEADER,
    ),
    _of(
        "leadership",
        "a lease it does not hold is released",
        "        if not self.leading:\n            return\n",
        "",
        "the leader's lease is given away",
        LEADER,
    ),
    _of(
        "leadership",
        "no transition is counted",
        '{"acquireTime": _now(), "leaseTransitions": changes}',
        '{"acquireTime": _now()}',
        "how often the leader changed cannot be seen",
        LEADER,
    ),
    _of(
        "leadership",
        "gives up at the first failure",
        "                left = self._times.renew_seconds - (self._clock() - self._renewed_at)\n                log.warning",
        "                left = 0.0\n                log.warning",
        "each hiccup ends the leader",
        LEADER,
    ),
)

MUTANTS: Final = (*INTAKE_, *KEYS_, *WRITER_, *LEADER_)
