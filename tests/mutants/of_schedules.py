"""Mistakes in schedules: when they fire, and that each tick does so once."""

from typing import Final

from tests.mutants.mutant import Mutant

TICKER: Final = "tests/unit/galley_worker/test_ticker.py"
TIMETABLE: Final = "tests/unit/galley/test_timetable.py"
KEEPER: Final = "tests/unit/galley_operator/schedules/test_keeper.py"

_SDK: Final = "sdk/galley/"
_WORKER: Final = "worker-image/galley_worker/"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str) -> Mutant:
    return Mutant(f"schedules: {name}", f"{path}.py", old, new, breaks, tests)


MUTANTS: Final = (
    _of(
        f"{_WORKER}ticker",
        "whatever is there is replaced",
        "schedule, at, instead_of=delivery.sequence)",
        "schedule, at, instead_of=0)",
        "a schedule fires once and never again",
        TICKER,
    ),
    _of(
        f"{_WORKER}ticker",
        "an old delivery tells the time",
        "if not schedule.fresh and (",
        "if schedule.gone and (",
        "the first tick of a long absence counts as on time",
        TICKER,
    ),
    _of(
        f"{_WORKER}ticker",
        "the worker's clock decides",
        "        now = stamp_of(delivery)\n",
        "        now = self._now()\n",
        "a worker whose clock is ahead skips the ticks of hours",
        TICKER,
    ),
    _of(
        f"{_WORKER}ticker",
        "overlap is not looked at",
        "if last and last != task_id and schedule.repeat.overlap is not Overlap.ALLOW:",
        "if not last and schedule.repeat.overlap is not Overlap.ALLOW:",
        "a slow task runs beside itself",
        TICKER,
    ),
    _of(
        f"{_WORKER}ticker",
        "what is not encrypted fires",
        "plaintext=self._plaintext\n",
        "plaintext=True\n",
        "who has no keys of a queue has its workers encrypt what they like",
        TICKER,
    ),
    _of(
        f"{_WORKER}settle",
        "ends of ticks are kept as briefly as any",
        "least = max(least, TICK_KEPT_SECONDS) if schedule or is_step(address.id) else least",
        "least = max(least, TICK_KEPT_SECONDS) if is_step(address.id) else least",
        "a tick runs again when its result has expired",
        TICKER,
    ),
    _of(
        f"{_SDK}schedule",
        "ticks of a suspension count",
        "max(decided, now) if schedule.reset else decided",
        "max(decided, now) if schedule.gone else decided",
        "a resumed schedule runs all it was stopped from",
        TICKER,
    ),
    _of(
        f"{_SDK}schedule",
        "a clock that goes back takes ticks back",
        "decided=now if progress.decided is None else max(progress.decided, now),",
        "decided=now,",
        "an hour of ticks runs twice",
        TICKER,
    ),
    _of(
        f"{_SDK}timetable",
        "the hour that comes twice has its ticks twice",
        "if (found := tick.astimezone(UTC)) > last:",
        "if (found := tick.astimezone(UTC)) is not None:",
        "a nightly task runs twice in autumn",
        TIMETABLE,
    ),
    _of(
        "operator/galley_operator/schedules/keeper",
        "what has no object is removed",
        "if schedule.origin is not Origin.OBJECT or not schedule.uid:",
        "if schedule.origin is Origin.CODE:",
        "an operator deletes the schedules of programs",
        KEEPER,
    ),
)
