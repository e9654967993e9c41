"""Every named place, and what has to happen for a process to come there."""

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

SCALER: Final = ("scale.before_undrain", "scale.before_scale", "scale.before_drain")
FLEET: Final = ("scale_in.before_cost", "scale_in.before_replicas")
"""Places in the operator."""

FAULTS: Final = ("crash", "freeze", "delay", "lose")
