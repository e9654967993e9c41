"""Mistakes in claims and verdicts: who may run an attempt, and what follows from its end."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "worker-image/galley_worker/"
_UNIT: Final = "tests/unit/galley_worker/"
CLAIMS: Final = f"{_UNIT}test_claims.py"
CLAIM: Final = f"{_UNIT}test_claim.py"
VERDICT: Final = f"{_UNIT}test_verdict.py"
HOLDERS: Final = f"{_UNIT}test_takeovers.py"


def _of(module: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    return Mutant(f"{module}: {name}", f"{_ROOM}{module}.py", old, new, breaks, tests, survives)


CLAIMANT: Final = (
    _of(
        "claimant",
        "a crash is forgotten at the next record",
        "                held.fence, held.claimed, held.history = written, True, step.history\n",
        "                held.fence, held.claimed = written, True\n",
        "a task that kills its workers does so forever",
        CLAIMS,
    ),
    _of(
        "claimant",
        "the claim's sequence is not kept",
        "                held.fence, held.claimed, held.history = written, True, step.history\n",
        "                held.claimed, held.history = True, step.history\n",
        "a worker is beaten by its own claim",
        CLAIMS,
    ),
    _of(
        "claimant",
        "a failed end is acknowledged without its letter",
        "                await self._settler.finish(held.delivery, final)\n",
        "                self._settler.drop(held.delivery)\n",
        "a worker that died after the record leaves a failed task without a letter",
        CLAIMS,
    ),
    _of(
        "claimant",
        "a lost schedule is not made up for",
        "                await self._settler.schedule_again(held, envelope, flags, due_at)\n",
        "                self._settler.drop(held.delivery)\n",
        "a retry whose worker died before the schedule is lost",
        CLAIMS,
    ),
    _of(
        "claimant",
        "what should not be is acknowledged",
        "                journal.left_alone(held, why)\n",
        "                self._settler.drop(held.delivery)\n",
        "the only message of a task is gone",
        CLAIMS,
    ),
    _of(
        "claimant",
        "another's message is left forever",
        "                self._settler.drop(held.delivery)\n            case Ended",
        "                pass\n            case Ended",
        "a second copy comes back again and again",
        CLAIMS,
    ),
    _of(
        "claimant",
        "reads whatever record a replica has",
        "        stored = await self._ledger.read(held.delivery.address, beaten.by)\n",
        "        stored = await self._ledger.read(held.delivery.address)\n",
        "an old record decides",
        CLAIMS,
    ),
    _of(
        "claimant",
        "the last crash runs once more",
        "        held.fence, held.history = step.fence, history\n",
        "        return ClaimAt(step.fence, history)\n",
        "one crash more than allowed",
        CLAIMS,
    ),
    _of(
        "claimant",
        "the burial is fenced by nothing",
        "        held.fence, held.history = step.fence, history\n",
        "        held.history = history\n",
        "a task that is over its crashes is never buried",
        CLAIMS,
    ),
)

CLAIM_: Final = (
    _of(
        "claim",
        "redelivered messages need no claim",
        "        delivery.delivered > 1 or flags",
        "        flags",
        "a task runs twice",
        CLAIM,
    ),
    _of(
        "claim",
        "flagged messages need no claim",
        " or flags.republished or",
        " or",
        "a task submitted twice runs twice",
        CLAIM,
    ),
    _of(
        "claim",
        "messages from before the connection need no claim",
        " or delivery.old or",
        " or",
        "a killed broker runs tasks twice",
        CLAIM,
    ),
    _of(
        "claim",
        "another stream's message of that number is the same",
        "(one.stream, one.sequence) == (other.stream, other.sequence)",
        "one.sequence == other.sequence",
        "two messages run one attempt",
        CLAIM,
    ),
    _of(
        "claim",
        "a handed-back run is a crash",
        "if record.handed_back or ",
        "if ",
        "a drained worker costs a crash",
        CLAIM,
        CLAIMS,
    ),
    _of(
        "claim",
        "no run is ever a crash",
        "step.worker, holder is Holder.GONE, step.since)",
        "step.worker, False, step.since)",
        "a task that kills workers goes on",
        CLAIM,
    ),
)

TAKE_OVER: Final = (
    _of(
        "claim",
        "every takeover is a crash",
        "step.worker, holder is Holder.GONE, step.since)",
        "step.worker, True, step.since)",
        "restarts of the broker alone bury tasks",
        CLAIM,
        HOLDERS,
    ),
    _of(
        "claim",
        "what a live worker runs is taken over",
        "        case Holder.RUNNING:\n",
        "        case Holder.RUNNING if False:\n",
        "two workers run one attempt",
        CLAIM,
        HOLDERS,
    ),
    _of(
        "claim",
        "no patience with who reconnects",
        '            return LookAgain(f"worker {step.worker} may still be reconnecting")\n',
        "            return ClaimAt(step.fence, step.history, step.worker)\n",
        "two workers run one attempt after a restart of the broker",
        CLAIM,
        HOLDERS,
    ),
    _of(
        "claimant",
        "what another runs is acknowledged",
        "                # Its renewals name the message, so they hold it though it was delivered here.\n",
        "                self._settler.drop(held.delivery)\n",
        "a worker that dies later leaves neither message nor outcome",
        HOLDERS,
    ),
    _of(
        "claimant",
        "who may be reconnecting is never asked again",
        "                self._settler.look_again(held.delivery, LOOK_AGAIN_SECONDS)\n",
        "                pass\n",
        "a task waits for a whole lease after a restart of the broker",
        HOLDERS,
    ),
    _of(
        "claimant",
        "no answer on a young connection is proof",
        "            if self._broker.connected and self._clock() - self._connected_at >= self._away_seconds:\n",
        "            if self._broker.connected:\n",
        "a live worker that reconnects a moment later is counted as a crash",
        HOLDERS,
    ),
    _of(
        "claimant",
        "a holder that does not answer is gone",
        "                found = Holder.SILENT\n",
        "                found = Holder.GONE\n",
        "a frozen worker is counted as a crash",
        HOLDERS,
    ),
    _of(
        "claimant",
        "a holder that runs it counts as idle",
        "                    return Holder.RUNNING\n",
        "                    return Holder.IDLE\n",
        "two workers run one attempt",
        HOLDERS,
    ),
    _of(
        "ledger",
        "what was said on a broken connection is not said again",
        "            if said_at >= recent:\n",
        "            if False:\n",
        "a message that no worker has waits for the end of its lease",
        HOLDERS,
    ),
)

VERDICT_: Final = (
    _of(
        "verdict",
        "crashes one too many",
        "    return history.crashes >= policy.crashes\n",
        "    return history.crashes > policy.crashes\n",
        "one crash more than allowed",
        VERDICT,
    ),
    _of(
        "verdict",
        "a deadline that is reached still waits",
        "due_at >= deadline:",
        "due_at > deadline:",
        "an attempt begins when its time is over",
        VERDICT,
    ),
    _of(
        "verdict",
        "errors that cannot be cured are tried again",
        "    if not ending.retryable or _fails(rule):\n",
        "    if _fails(rule):\n",
        "attempts are wasted",
        VERDICT,
    ),
    _of(
        "verdict",
        "a crash beside others buries",
        "_killed(failure, longer) if runs_alone(history, policy) else None",
        "_killed(failure, longer) if runs_alone(longer, policy) else None",
        "a task is buried for the crash of another",
        VERDICT,
        CLAIMS,
    ),
    _of(
        "verdict",
        "a crash beside others in one's own process buries",
        "            if runs_alone(given.history, policy):\n",
        "            if runs_alone(history, policy):\n",
        "a task is buried for the crash of another",
        VERDICT,
    ),
    _of(
        "verdict",
        "a preemption is an error",
        "_lengthened(given, EndedBy.PREEMPTION,",
        "_lengthened(given, EndedBy.ERROR,",
        "a rollout uses up attempts",
        VERDICT,
    ),
)

MUTANTS: Final = (*CLAIMANT, *CLAIM_, *TAKE_OVER, *VERDICT_)
