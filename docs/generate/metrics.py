"""`docs/reference/metrics.md`: each metric of each program."""

from collections.abc import Iterable
from typing import Final

from galley.series import Series
from galley_gateway import metrics as gateway
from galley_operator import broker_figures, figures, metrics, topic_figures
from galley_worker import measures

_TOP: Final = """# Metrics

Served in Prometheus' text format under `/metrics`: by the operator on port 8080, by a worker on the port
`health` of its pod, and by the gateway on port 8081. All of them also serve `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_open_fds` and `process_start_time_seconds`, whose changes are
restarts. [What to do with them](../operations/monitoring.md).

Labels have few values: names of namespaces, queues, lanes, schedules and limits, and the words listed here.
None has an id of a task.
"""

_QUEUES: Final = """## Queues, from the operator

Served by the replica that leads. They continue when workers end, at zero workers, and when the operator is
started again: numbers that end in `_total`, and the histograms, are kept in NATS.

What may be missed: a worker hands its numbers over every five seconds and when it ends, so one that is
killed takes up to five seconds of them along. A record that was written and whose worker died before it
counted it is not counted. Numbers are never added twice, and they are not in a backup: after a restore they
begin at 0, which Prometheus takes for a restart. Messages that are no tasks count as `failed`. A task is
`cancelled` once, whether or not it ran.
"""


EVERY: Final = (
    *figures.SERIES,
    *broker_figures.SERIES,
    *topic_figures.SERIES,
    *metrics.SERIES,
    *measures.SERIES,
    *gateway.SERIES,
)


def document() -> str:
    """Return the page."""
    return "\n".join((
        _TOP,
        _QUEUES,
        *_table(figures.SERIES),
        "## NATS, from the operator\n",
        "For more metrics of NATS, run [an exporter](../operations/monitoring.md#nats).\n",
        *_table(broker_figures.SERIES),
        "## Topics, from the operator\n",
        *_table(topic_figures.SERIES),
        "## The operator\n",
        *_table(metrics.SERIES),
        "## Workers\n",
        "Of one worker process; they end with it. For what a queue did altogether use `galley_queue_...`.\n",
        *_table(measures.SERIES),
        "## The gateway\n",
        "Of one gateway process.\n",
        *_table(gateway.SERIES),
    ))  # fmt: skip


def _table(every: Iterable[Series]) -> list[str]:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for each in every:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        lines.append(f"| `{each.name}` | {each.kind} | {labels} | {each.meaning} |")
    return [*lines, ""]
