"""One call of a handler for the inputs of several tasks, and what became of each of them."""

from typing import Any, Final

from msgspec.structs import replace

from galley.batching import outcomes
from galley.current import CurrentTask
from galley.handler import Handler
from galley_worker.runners import frames
from galley_worker.runners.child import call
from galley_worker.runners.frames import Again, Failed, Member, Outcomes, Run, RunBatch

_RESULT_INVALID: Final = "ResultInvalid"


class BatchCall:
    """The members of a batch whose inputs fit the handler, and the answers of the others."""

    def __init__(self, order: RunBatch, handler: Handler[..., Any], queue: str, spool: str) -> None:
        """Decode the inputs; one that does not fit fails alone."""
        self.items: list[Any] = []
        """What the handler gets."""
        self._order, self._handler, self._queue, self._spool = order, handler, queue, spool
        (self._name,) = handler.signature.parameters
        self._members: list[tuple[int, Run]] = []
        self._answers: list[Member | None] = [None] * len(order.members)
        for place, member in enumerate(order.members):
            try:
                item = self._item(member)
            except BaseException as error:  # a class of the user's may raise anything
                self._answers[place] = call.failed(member.id, 0.0, handler.function, None, error)
            else:
                self.items.append(item)
                self._members.append((place, member))

    def _item(self, member: Run) -> Any:
        named = call.arguments_of(member, self._handler.types)
        if named.keys() != {self._name}:
            given = ", ".join(sorted(named)) or "none"
            raise call.InputInvalid(f"the input has the one argument {self._name!r}, not {given}")
        return named[self._name]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the handler is called with."""
        return {self._name: self.items}

    def tasks(self) -> tuple[CurrentTask, ...]:
        """Return the tasks of the inputs, as the handler sees them."""
        return tuple(
            replace(call.task_of(member, self._queue), order=frames.member_id(self._order.id, place))
            for place, member in self._members
        )

    def returned(self, value: Any, seconds: float) -> Outcomes:
        """Return the answer once the handler has returned."""
        try:
            each = outcomes(value, len(self._members))
        except ValueError as error:
            failure = Failed(0, seconds, _RESULT_INVALID, str(error), "", retryable=False)
            return self._all(failure, seconds)
        for (place, member), outcome in zip(self._members, each, strict=True):
            if issubclass(type(outcome), Exception):
                answer: Member = call.failed(member.id, seconds, self._handler.function, None, outcome)
            else:
                kept = outcome if self._handler.store_result else None
                answer = call.done(member.id, seconds, kept, self._spool)
            self._answers[place] = answer
        return self._outcomes(seconds, whole=False)

    def raised(self, error: BaseException, seconds: float, told: str = "") -> Outcomes:
        """Return the answer once the handler has raised: it stands for each member.

        Args:
            error: what it raised.
            seconds: how long it took.
            told: what is said of it, if not the exception's own words.
        """
        failed = call.failed(0, seconds, self._handler.function, self.arguments, error)
        failed.message = told or failed.message
        return self._all(failed, seconds)

    def _all(self, answer: Failed | Again, seconds: float) -> Outcomes:
        for place, member in self._members:
            self._answers[place] = replace(answer, id=member.id)
        return self._outcomes(seconds, whole=isinstance(answer, Failed))

    def _outcomes(self, seconds: float, *, whole: bool) -> Outcomes:
        answers = [answer for answer in self._answers if answer is not None]
        return Outcomes(self._order.id, seconds, answers, whole and len(self._members) > 1)
