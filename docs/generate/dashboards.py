"""`charts/galley/files/grafana/*.json`: the dashboards for Grafana, from a table of panels."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_HEIGHT: Final = 8
_QUEUE: Final = 'namespace=~"$namespace",queue=~"$queue"'


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows, in which unit, and the queries with the legend of each."""

    title: str
    meaning: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12


@dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[str, ...] = ()


_RECONCILE: Final = (
    "histogram_quantile(0.95, sum by (le) (rate(galley_operator_reconcile_seconds_bucket[15m])))"
)
_DISK: Final = "max(galley_broker_storage_used_bytes) / max(galley_broker_storage_limit_bytes)"
_CONTINUED: Final = f"sum by (queue, reason) (rate(galley_queue_continued_attempts_total{{{_QUEUE}}}[5m]))"


def _quantile(share: float, histogram: str) -> str:
    rate = f"rate({histogram}_bucket{{{_QUEUE}}}[5m])"
    return f"histogram_quantile({share}, sum by (queue, lane, le) ({rate}))"


_UNEXPECTED: Final = (
    'sum(rate({__name__=~"galley_(operator|worker|gateway)_unexpected_errors_total"}[5m])) or vector(0)'
)

OVERVIEW: Final = Dashboard(
    "galley-overview",
    "Galley / Overview",
    (
        Panel(
            "Operator leads",
            "1 if some replica leads.",
            (("max(galley_operator_leading)", ""),),
            kind="stat",
            width=4,
        ),
        Panel(
            "NATS connected",
            "1 while the operator is connected.",
            (("min(galley_operator_broker_connected)", ""),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Queues not ready",
            "Queues whose condition Ready is not True.",
            (("sum(galley_operator_queues) - sum(galley_operator_queues_ready)", ""),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Waiting",
            "Tasks that wait for a slot.",
            (("sum(galley_queue_waiting_tasks)", ""),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Running",
            "Tasks that workers hold.",
            (("sum(galley_queue_running_tasks)", ""),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Dead letters",
            "Dead letters that are kept.",
            (("sum(galley_queue_dead_letters)", ""),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Tasks that end",
            "By outcome, of all queues.",
            (("sum by (outcome) (rate(galley_queue_outcomes_total[5m]))", "{{outcome}}"),),
            "ops",
        ),
        Panel(
            "Waiting by queue",
            "Tasks that wait for a slot.",
            (("sum by (namespace, queue) (galley_queue_waiting_tasks)", "{{namespace}}/{{queue}}"),),
        ),
        Panel(
            "Oldest waiting task",
            "By queue.",
            (("max by (namespace, queue) (galley_queue_oldest_wait_seconds)", "{{namespace}}/{{queue}}"),),
            "s",
        ),
        Panel(
            "Workers",
            "Ready, by queue.",
            (('galley_operator_workers{state="ready"}', "{{namespace}}/{{queue}}"),),
        ),
        Panel(
            "Operator errors",
            "Reconciles that failed, and unexpected errors.",
            (
                ("sum(rate(galley_operator_reconcile_errors_total[5m])) or vector(0)", "reconcile"),
                (
                    _UNEXPECTED,
                    "unexpected",
                ),
            ),
            "ops",
        ),
        Panel("Reconcile time", "95th percentile.", ((_RECONCILE, "p95"),), "s"),
    ),
)

QUEUE: Final = Dashboard(
    "galley-queue",
    "Galley / Queue",
    (
        Panel(
            "Waiting and running",
            "By lane.",
            (
                (f"galley_queue_waiting_tasks{{{_QUEUE}}}", "{{queue}} {{lane}} waiting"),
                (f"galley_queue_running_tasks{{{_QUEUE}}}", "{{queue}} {{lane}} running"),
            ),
        ),
        Panel(
            "Submitted and ended",
            "Tasks in a second.",
            (
                (f"rate(galley_queue_submitted_total{{{_QUEUE}}}[5m])", "{{queue}} submitted"),
                (
                    f"sum by (queue, outcome) (rate(galley_queue_outcomes_total{{{_QUEUE}}}[5m]))",
                    "{{queue}} {{outcome}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Wait, p50 and p95",
            "From when a task could run to the start of its handler, by lane.",
            (
                (_quantile(0.5, "galley_queue_wait_seconds"), "{{queue}} {{lane}} p50"),
                (_quantile(0.95, "galley_queue_wait_seconds"), "{{queue}} {{lane}} p95"),
            ),
            "s",
        ),
        Panel(
            "Attempts, p50 and p95",
            "From delivery to the end of an attempt, by lane.",
            (
                (_quantile(0.5, "galley_queue_attempt_seconds"), "{{queue}} {{lane}} p50"),
                (_quantile(0.95, "galley_queue_attempt_seconds"), "{{queue}} {{lane}} p95"),
            ),
            "s",
        ),
        Panel(
            "Attempts that continue",
            "Retries, deferrals, hand-backs and lost leases.",
            ((_CONTINUED, "{{queue}} {{reason}}"),),
            "ops",
        ),
        Panel(
            "Later and dead",
            "Tasks for later, retries included, and dead letters.",
            (
                (f"galley_queue_later_tasks{{{_QUEUE}}}", "{{queue}} later"),
                (f"galley_queue_dead_letters{{{_QUEUE}}}", "{{queue}} dead"),
            ),
        ),
        Panel(
            "Workers",
            "Needed by the work, desired within the limits, present, ready.",
            ((f"galley_operator_workers{{{_QUEUE}}}", "{{queue}} {{state}}"),),
        ),
        Panel(
            "What scaling is decided from",
            "Tasks that become due in a second, and 1 while scaling is held.",
            (
                (f"galley_operator_arrivals_per_second{{{_QUEUE}}}", "{{queue}} arrivals/s"),
                (f"galley_operator_scaling_held{{{_QUEUE}}}", "{{queue}} held"),
            ),
        ),
        Panel(
            "Limits used",
            "Share of each of spec.limits.",
            (
                (
                    f"galley_queue_limit_used{{{_QUEUE}}} / galley_queue_limit{{{_QUEUE}}}",
                    "{{queue}} {{limit}}",
                ),
            ),
            "percentunit",
            width=24,
        ),
    ),
    ("namespace", "queue"),
)

BROKER: Final = Dashboard(
    "galley-broker",
    "Galley / NATS",
    (
        Panel(
            "Connected",
            "1 while the operator is connected.",
            (("galley_operator_broker_connected", "{{instance}}"),),
            kind="stat",
            width=6,
        ),
        Panel("Streams", "Streams there are.", (("max(galley_broker_streams)", ""),), kind="stat", width=6),
        Panel(
            "Consumers", "Consumers there are.", (("max(galley_broker_consumers)", ""),), kind="stat", width=6
        ),
        Panel(
            "Disk used",
            "Share of the disk JetStream may take.",
            ((_DISK, ""),),
            "percentunit",
            kind="stat",
            width=6,
        ),
        Panel(
            "Disk",
            "Used, set aside, and the limit.",
            (
                ("max(galley_broker_storage_used_bytes)", "used"),
                ("max(galley_broker_storage_reserved_bytes)", "reserved"),
                ("max(galley_broker_storage_limit_bytes)", "limit"),
            ),
            "bytes",
        ),
        Panel(
            "Connections made",
            "By the operator: each after the first is a reconnection.",
            (("galley_operator_broker_connections_total", "{{instance}}"),),
        ),
        Panel(
            "Bytes of queues",
            "Used of the limits in bytes.",
            (('galley_queue_limit_used{limit=~".*Bytes"}', "{{namespace}}/{{queue}} {{limit}}"),),
            "bytes",
            width=24,
        ),
    ),
)

DASHBOARDS: Final = (OVERVIEW, QUEUE, BROKER)


def document(dashboard: Dashboard) -> str:
    """Return a dashboard as Grafana imports it."""
    return json.dumps(
        {
            # With all that the schema of grafana-foundation-sdk asks for, also what Grafana would assume.
            "uid": dashboard.uid,
            "title": dashboard.title,
            "tags": ["galley"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "",
            "annotations": {"list": []},
            "templating": {"list": [_source(), *(_variable(name) for name in dashboard.variables)]},
            "panels": list(_panels(dashboard)),
        },
        indent=2,
    ) + "\n"  # fmt: skip


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "default", "value": "default"},
    }


def _variable(name: str) -> dict[str, Any]:
    narrowed = "" if name == "namespace" else '{namespace=~"$namespace"}'
    return {
        "name": name, "label": name.capitalize(), "type": "query", "datasource": _SOURCE,
        "query": {"query": f"label_values(galley_operator_queue_ready{narrowed}, {name})", "refId": name},
        "refresh": 2, "multi": True, "includeAll": True, "allValue": ".*", "sort": 1,
        "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    x = y = tallest = 0
    for number, panel in enumerate(dashboard.panels, start=1):
        height = 4 if panel.kind == "stat" else _HEIGHT
        if x + panel.width > _WIDTH:
            x, y, tallest = 0, y + tallest, 0
        tallest = max(tallest, height)
        yield {
            "id": number, "type": panel.kind, "title": panel.title, "description": panel.meaning,
            "datasource": _SOURCE, "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": _OPTIONS[panel.kind],
            "targets": [
                {
                    "refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query,
                    "legendFormat": legend or "__auto",
                }
                for place, (query, legend) in enumerate(panel.queries)
            ],
        }  # fmt: skip
        x += panel.width


_OPTIONS: Final[dict[str, Any]] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
}
