"""Mistakes in attempts, leases and pulls."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "worker-image/galley_worker/"
_UNIT: Final = "tests/unit/galley_worker/"
ATTEMPTS: Final = f"{_UNIT}test_attempts.py"
PULLER: Final = f"{_UNIT}test_puller.py"
LEASES: Final = f"{_UNIT}test_leases.py"
WITHDRAWN: Final = "tests/integration/galley_worker/test_withdrawn.py"
WEBHOOKS: Final = f"{_UNIT}runners/test_webhooks.py"
CREDITS: Final = f"{_UNIT}test_credits.py"


def _of(module: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    return Mutant(f"{module}: {name}", f"{_ROOM}{module}.py", old, new, breaks, tests, survives)


ATTEMPTS_: Final = (
    _of(
        "attempts",
        "what was read too late begins",
        "        if lease is None:\n",
        "        if False:\n",
        "two workers run one attempt",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "a lost lease still writes",
        "        if present.lease_lost and isinstance(ending, CutOff | NotBegun):\n",
        "        if False:\n",
        "a message is taken from the worker that has it now",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "no look at the lease after a claim",
        "        self._parts.leases.check(present.lease)\n",
        "",
        "a process that slept begins what another runs",
        ATTEMPTS,
    ),
    _of(
        "runners/commands",
        "no look at the leases before a program starts",
        "                if execution.because is not None:\n                    return execution.because\n                running",
        "                running",
        "a command that waited in a frozen process begins when it wakes",
        WITHDRAWN,
    ),
    _of(
        "runners/commands",
        "an old look at the leases will do",
        "            if uninterrupted() - looked_at > _FRESH_SECONDS:\n                return None\n",
        "",
        "a command begins when the thread that starts it wakes",
        WITHDRAWN,
    ),
    _of(
        "runners/webhooks",
        "no look at the leases before a request on a new connection",
        "        looks.on_connection_create_end.append(look)\n",
        "",
        "a request that waited in a frozen process is sent when it wakes",
        WEBHOOKS,
    ),
    _of(
        "runners/webhooks",
        "no look at the leases before a request on an old connection",
        "        looks.on_connection_reuseconn.append(look)\n",
        "",
        "a request that waited in a frozen process is sent when it wakes",
        WEBHOOKS,
    ),
    _of(
        "runners/webhooks",
        "what has not begun is cancelled",
        "        if execution.started_at is not None:\n",
        "        if True:\n",
        "the attempt never ends, and its slot is never free again",
        WEBHOOKS,
    ),
    _of(
        "leases",
        "no look at the leases before work leaves",
        "        if self._asleep_since is not None:\n            self._fence()\n",
        "",
        "what waited in a frozen process begins when it wakes",
        LEASES,
    ),
    _of(
        "attempts",
        "a cancel in hand is forgotten",
        "        if self._cancelled and _task(delivery) in self._cancelled:\n",
        "        if False:\n",
        "a cancelled task runs",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "a cancel does not stop what runs",
        "            present.stop(Cancelled())\n        return present",
        "            pass\n        return present",
        "a cancelled task runs to its end",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "a stopped attempt begins",
        "        if present.stopped is not None:\n            return present.stopped\n",
        "",
        "what was cancelled or lost while it was claimed runs",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "settles the first delivery's message",
        "        self.delivery = self.delivery._replace(reply=reply)\n",
        "",
        "the message of an attempt that came again is never acknowledged",
        ATTEMPTS,
        survives="an acknowledgement of an earlier delivery of a message takes it away as well",
    ),
    _of(
        "attempts",
        "renews the first delivery's lease",
        "        self.lease.reply = reply\n",
        "",
        "the lease of an attempt that came again lapses",
        ATTEMPTS,
        survives="a sign of life for an earlier delivery of a message counts for the present one",
    ),
    _of(
        "attempts",
        "leans on an attempt that is lost",
        "        return None if present is None or present.lease_lost else present\n",
        "        return present\n",
        "a task is given to an attempt that will write nothing",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "runs again what runs",
        "        present = self.holds(_message(delivery))\n        if present is None:\n",
        "        present = None\n        if present is None:\n",
        "a task runs twice in one worker",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "no lease is released",
        "            self._parts.leases.release(lease)\n",
        "",
        "leases of ended attempts are renewed",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "a deadline does not bound an attempt",
        "        return min(timeout, (held.envelope.deadline - self._parts.now()).total_seconds())\n",
        "        return timeout\n",
        "an attempt runs on when its time is over",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "a task past its deadline begins",
        "        if timeout <= 0:\n",
        "        if timeout <= -1e9:\n",
        "useless work is done",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "the queue's policy before the task's",
        "        if held.envelope.retry is not None:\n",
        "        if False:\n",
        "a task's own retries do nothing",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "the queue's timeout before the task's",
        "        timeout = own or self._rules.timeout_seconds\n",
        "        timeout = self._rules.timeout_seconds\n",
        "a task's own timeout does nothing",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "unreadable messages are dropped",
        "            await self._parts.settler.bury_unreadable(delivery, Failure(error.reason, str(error)))\n",
        "            self._parts.settler.drop(delivery)\n",
        "their bytes are lost",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "runs without a claim",
        "        if not claimed:\n            return\n",
        "",
        "an ended task runs again",
        ATTEMPTS,
    ),
    _of(
        "attempts",
        "cancels are remembered without bound",
        "        if len(self._cancelled) > REMEMBERED_CANCELS:\n",
        "        if False:\n",
        "a worker grows with each cancel",
        ATTEMPTS,
    ),
)

LEASES_: Final = (
    _of(
        "leases",
        "the fence falls with the lease",
        "        self._fence_seconds = max(lease_seconds / 2, lease_seconds - FENCE_MARGIN_SECONDS)\n",
        "        self._fence_seconds = lease_seconds\n",
        "two workers run one attempt",
        LEASES,
    ),
    _of(
        "leases",
        "renewals that did not arrive count",
        '            log.warning("leases not renewed", extra={"leases": len(due)})\n            return False\n',
        '            log.warning("leases not renewed", extra={"leases": len(due)})\n',
        "a worker believes in leases it has lost",
        LEASES,
    ),
    _of(
        "leases",
        "counts from the answer",
        "            lease.renewed_at = began\n",
        "            lease.renewed_at = self._clock()\n",
        "the fence falls late by a round trip",
        LEASES,
    ),
    _of(
        "leases",
        "no sleep is noticed",
        "        if now - self._looked_at > 3 * self._step:\n",
        "        if False:\n",
        "what was delivered during a sleep counts as new",
        LEASES,
    ),
    _of(
        "leases",
        "a second sleep is not noticed",
        "            self._sleeps += 1\n",
        "",
        "deliveries of a second sleep count as new",
        LEASES,
    ),
    _of(
        "leases",
        "lost leases are renewed",
        "        self._leases.discard(lease)\n        lease.lost()\n",
        "        lease.lost()\n",
        "an attempt is stopped again and again",
        LEASES,
    ),
    _of(
        "leases",
        "renews once a lease",
        "RENEWALS: Final = 3\n",
        "RENEWALS: Final = 1\n",
        "each hiccup costs the lease",
        LEASES,
    ),
)

PULLER_: Final = (
    _of(
        "puller",
        "deliveries of a lost connection are begun",
        "            tasks.clear()\n        self._held = 0\n",
        "            pass\n",
        "a task runs twice after a reconnection",
        PULLER,
    ),
    _of(
        "puller",
        "stopped, it keeps what it holds",
        "            while tasks and (self._stopped or self._paused or self._held",
        "            while tasks and (self._held",
        "tasks wait for the end of a lease",
        PULLER,
    ),
    _of(
        "puller",
        "paused, it goes on",
        "        self._paused = True\n",
        "        self._paused = False\n",
        "a drained worker takes tasks",
        PULLER,
    ),
    _of(
        "puller",
        "silent pulls are kept",
        "                self._pulls.drop_silent()\n",
        "                pass\n",
        "a worker waits on a dead server's pull",
        PULLER,
    ),
    _of(
        "puller",
        "no wake-up by a slot",
        "        if self._held:\n            self._ready.set()\n        self._wake.set()\n\n    async def deliveries",
        "        return\n\n    async def deliveries",
        "free slots stay idle",
        PULLER,
    ),
    _of(
        "puller",
        "gives more than there are slots",
        "            while self._held and self._slots.free > 0 and",
        "            while self._held and",
        "a worker runs more than it may",
        PULLER,
    ),
    _of(
        "puller",
        "keeps what it has no slot for",
        "            if self._held and not self._slots.brisk:\n                self._give_back()\n            elif",
        "            if",
        "a task waits at a busy worker while another idles",
        PULLER,
    ),
)

CREDITS_: Final = (
    _of(
        "credits",
        "no credit is paid back",
        "        credit[started] = max(0, credit[started] - _WHOLE)\n",
        "",
        "a low lane takes over",
        CREDITS,
    ),
    _of(
        "credits",
        "an empty lane saves up",
        "if lane in waiting else 0\n",
        "if lane in waiting else credit[lane]\n",
        "a lane that was empty starves those above it",
        CREDITS,
    ),
    _of(
        "credits",
        "the highest of the due lanes first",
        "            for lane in reversed(self.lanes)\n            if lane in waiting and",
        "            for lane in self.lanes\n            if lane in waiting and",
        "the lowest lane waits longer than promised",
        CREDITS,
    ),
)

MUTANTS: Final = (*ATTEMPTS_, *LEASES_, *PULLER_, *CREDITS_)
