"""Every named place, and what has to happen for a process to come there."""

import os
from typing import Final

WORKER: Final = {
    "run.before_start": "plain",
    "run.after_end": "plain",
    "settle.before_record": "plain",
    "settle.before_ack": "plain",
    "settle.after_ack": "plain",
    "claim.before_record": "claimed",
    "claim.after_record": "claimed",
    "claim.before_look": "refused",
    "settle.before_letter": "failed",
    "unreadable.before_letter": "unreadable",
    "retry.before_record": "retried",
    "retry.before_schedule": "retried",
    "drain.begun": "drained",
    "drain.before_cut": "drained",
    "hand_back.before_record": "drained",
    "hand_back.before_nak": "drained",
    "let_go.before_record": "dropped",
}
"""Places in a worker, by the scenario that leads there."""

CLIENT: Final = {
    "publish.before_send": "submit",
    "publish.sent": "submit",
    "cancel.before_record": "cancel",
    "cancel.before_purge": "cancel",
    "cancel.before_request": "cancel",
}
"""Places in a producer or a canceller, by what it does."""

DATA_WORKER: Final = {
    "object.before_use": "returned_large",
    "object.before_parts": "returned_large",
    "object.before_whole": "returned_large",
    "key.before_begin": "unique",
    "key.before_release": "unique",
    "note.before_write": "noting",
    "then.before_plan": "onward",
    "then.before_record": "onward",
    "then.before_schedule": "onward",
    "then.before_wake": "onward",
    "flow.before_join": "onward",
    "flow.before_task": "onward",
    "flow.before_mark": "onward",
    "flow.before_end": "onward",
    "turn.before_permit": "keyed",
    "turn.before_move": "keyed",
    "turn.before_remove": "keyed",
    "turn.before_ack": "keyed",
    "turn.before_give_back": "keyed",
    "limit.before_write": "keyed",
    "limit.before_start": "keyed",
    "fanout.before_copy": "event",
    "fanout.before_ack": "event",
}
"""Places in a worker that has to do with objects, unique keys, notes, workflows, keys and topics."""

LETTER: Final = "fanout.before_letter"
"""Where an event that a subscription cannot take becomes a dead letter."""

DATA_CLIENT: Final = {
    "object.before_use": "large",
    "object.before_parts": "large",
    "object.before_whole": "large",
    "key.before_claim": "unique",
    "key.before_confirm": "unique",
    "redrive.before_send": "redrive",
    "redrive.before_record": "redrive",
    "redrive.before_drop": "redrive",
}
"""Places in a program, by what it does."""

TICKER: Final = ("tick.before_task", "tick.before_store")
SWEEP: Final = ("sweep.before_leaving", "sweep.before_delete", "sweep.before_forget")

SCALER: Final = ("scale.before_undrain", "scale.before_scale", "scale.before_drain")
FLEET: Final = ("scale_in.before_cost", "scale_in.before_replicas")
"""Places in the operator."""

FAULTS: Final = ("crash", "freeze", "delay", "lose")
ALL: Final = os.environ.get("GALLEY_FAULTS") == "all"
"""Whether each place of stored data is driven with each fault (`make faults`); CI has some, with a crash."""

_IN_CI: Final = (
    *("object.before_whole", "key.before_begin", "key.before_confirm", "redrive.before_record"),
    "tick.before_task",
    *("turn.before_remove", "fanout.before_ack", LETTER),
    "then.before_schedule",
)


def data_cases(places: dict[str, str], *of: str) -> list[tuple[str, str, str]]:
    """Return place, what leads there, and fault, for the places of a table that some ways lead to."""
    return [
        (place, scenario, fault)
        for fault in ("crash", "lose", "delay", "freeze")
        for place, scenario in places.items()
        if (scenario in of or not of) and (ALL or (fault == "crash" and place in _IN_CI))
    ]
