"""Lane credits: the highest lane is served next, but lower lanes have a guaranteed share. Pure.

Every start adds each waiting lane's share to its credit; the lowest lane with a whole credit goes
first. If two lanes would be due at the same start, the lower one goes one start earlier, so that neither
is late: a waiting lane starts within `ceil(1 / share)` starts of a worker, whatever time that takes.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from galley.lanes import GUARANTEED_SHARE, HIGHEST_FIRST, Lane

_WHOLE: Final = 10_000
"""One credit, as an integer, so that shares add up exactly."""


class LaneCredits:
    """The credits of one worker's lanes, or of the lanes of one key."""

    def __init__(self, lanes: Iterable[Lane], earned: Mapping[str, int] | None = None) -> None:
        """Args: lanes: in any order; earned: what `earned` returned before, none by default."""
        enabled = set(lanes)
        self.lanes = tuple(lane for lane in HIGHEST_FIRST if lane in enabled)
        self._shares = {lane: round(GUARANTEED_SHARE[lane] * _WHOLE) for lane in self.lanes}
        self._credits = {lane: min(_WHOLE, max(0, (earned or {}).get(lane, 0))) for lane in self.lanes}
        self._early = dict.fromkeys(self.lanes, 0)
        """Planned starts that come before they are due, since what is planned is asked lane by lane."""

    @property
    def earned(self) -> dict[str, int]:
        """What each lane has earned, to go on from; lanes without any are left out."""
        return {lane.value: credit for lane, credit in self._credits.items() if credit}

    def plan(self, starts: int, waiting: Collection[Lane]) -> dict[Lane, int]:
        """Return how many of the next `starts` go to which lane, in the order to ask them.

        Lanes that are due by their share are asked before the highest one. The plan assumes that each
        waiting lane has enough tasks; starts that a lane cannot use go to the next one in strict order.
        """
        self._early = early = dict.fromkeys(self.lanes, 0)
        if len(waiting) == 1:
            return dict.fromkeys(waiting, starts)  # without a step for each slot
        if starts == 1:
            return {lane: 1 for lane in [self._next(self._credits, waiting)] if lane}
        ahead = dict(self._credits)
        highest = next((lane for lane in self.lanes if lane in waiting), None)
        counts = dict.fromkeys(self.lanes, 0)
        for _ in range(starts):
            lane = self._next(ahead, waiting)
            if lane is None:
                return {}
            counts[lane] += 1
            early[lane] += lane is not highest
            self._account(ahead, lane, waiting)
        return {lane: counts[lane] for lane in reversed(self.lanes) if counts[lane]}

    def started(self, lane: Lane, waiting: Collection[Lane]) -> None:
        """Account for one start from `lane` while tasks wait in the lanes `waiting`."""
        if early := self._early[lane]:
            self._early[lane] = early - 1
        self._account(self._credits, lane, waiting, owed=early > 0)

    def emptied(self, lane: Lane) -> None:
        """Reset the credit of a lane in which nothing waits: credit is earned only while tasks wait."""
        self._credits[lane] = 0

    def _next(self, credit: dict[Lane, int], waiting: Collection[Lane]) -> Lane | None:
        if due := self._due(credit, waiting, 1):
            return due[0]
        if len(soon := self._due(credit, waiting, 2)) > 1:
            return soon[0]
        return next((lane for lane in self.lanes if lane in waiting), None)

    def _due(self, credit: dict[Lane, int], waiting: Collection[Lane], starts: int) -> list[Lane]:
        """Return the lanes that will have a whole credit so many starts from here, lowest first."""
        return [
            lane
            for lane in reversed(self.lanes)
            if lane in waiting and credit[lane] + starts * self._shares[lane] >= _WHOLE
        ]

    def _account(
        self, credit: dict[Lane, int], started: Lane, waiting: Collection[Lane], *, owed: bool = False
    ) -> None:
        for lane in self.lanes:
            # Credit saved up by an empty lane would starve the lanes above it.
            credit[lane] = credit[lane] + self._shares[lane] if lane in waiting else 0
        credit[started] -= _WHOLE
        if not owed:
            credit[started] = max(0, credit[started])
