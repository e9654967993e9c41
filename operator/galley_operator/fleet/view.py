"""A worker's pod as the autoscaler sees it."""

from datetime import datetime

from galley.broker.control import Heartbeat
from galley_operator.fleet.fleet import WorkerPhase, WorkerView
from galley_operator.fleet.pods import Pod
from galley_operator.fleet.trouble import trouble_of


def phase_of(pod: Pod, beat: Heartbeat | None, *, stuck: bool) -> WorkerPhase:
    """Return where a pod's worker stands, whether or not it was chosen to go.

    Args:
        pod: as it was seen last.
        beat: the last heartbeat of the life its container is in; None if there was none.
        stuck: whether it has been coming up for longer than any should.
    """
    if not pod.active:
        return WorkerPhase.STOPPING
    up = pod.container.state.running is not None
    if up and beat is not None and (beat.draining or beat.ready):
        return WorkerPhase.DRAINING if beat.draining else WorkerPhase.READY
    if up and beat is None and pod.ready:
        return WorkerPhase.READY
    failed = stuck or pod.container.restart_count > 0 or trouble_of(pod) is not None
    return WorkerPhase.FAILED if failed else WorkerPhase.STARTING


def view_of(
    pod: Pod,
    phase: WorkerPhase,
    beat: Heartbeat | None,
    *,
    fresh: bool,
    slots: int,
    now: datetime,
    heard: datetime | None = None,
) -> WorkerView:
    """Return a pod's worker as the autoscaler sees it.

    Args:
        pod: as it was seen last.
        phase: where it stands.
        beat: its last heartbeat.
        fresh: whether that was lately.
        slots: what the queue gives each worker.
        now: what stands for its start where that is not known.
        heard: when its last heartbeat was heard.
    """
    known = beat is not None and fresh
    return WorkerView(
        pod.name,
        phase,
        beat.busy if beat is not None and known else None,
        beat.slots if beat is not None else slots,
        pod.since or now,
        beat.done if beat is not None else 0,
        beat.busy_seconds if beat is not None else 0.0,
        beat is not None and beat.circuit_open,
        heard,
    )
