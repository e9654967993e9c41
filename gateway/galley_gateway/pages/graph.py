"""A workflow as a drawing: steps in columns by how many come before them. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from galley.workflows import StepStatus

WIDTH: Final = 176
HEIGHT: Final = 44
_ACROSS: Final = WIDTH + 56
_DOWN: Final = HEIGHT + 16
_MARGIN: Final = 8
ROWS: Final = 8
"""Steps of a column that are drawn one by one; more are drawn as one box."""
COLUMNS: Final = 40
"""Columns that are drawn."""
_LETTERS: Final = 20
_WORST_FIRST: Final = ("Failed", "Cancelled", "Running", "Waiting", "Skipped", "Succeeded")


@dataclass(frozen=True)
class Box:
    """A step, or all steps of a wide column."""

    x: int
    y: int
    name: str
    label: str
    state: str
    detail: str
    queue: str = ""
    task: str = ""
    """Its task; empty for several steps, and where there is none yet."""


@dataclass(frozen=True)
class Drawing:
    """Boxes, and the lines between them as paths of SVG."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]
    left_out: int
    """Steps in columns that are not drawn."""


def drawing_of(steps: Sequence[StepStatus]) -> Drawing:
    """Return the drawing of the steps of a workflow, which are in an order in which they can run."""
    depth: dict[str, int] = {}
    for step in steps:
        depth[step.name] = 1 + max((depth[name] for name in step.after if name in depth), default=-1)
    columns: dict[int, list[StepStatus]] = {}
    for step in steps:
        columns.setdefault(depth[step.name], []).append(step)
    boxes: list[Box] = []
    place: dict[str, Box] = {}
    for column in range(min(len(columns), COLUMNS)):
        there = columns[column]
        x = _MARGIN + column * _ACROSS
        if len(there) > ROWS:
            box = _many(there, x)
            boxes.append(box)
            place |= dict.fromkeys((step.name for step in there), box)
            continue
        for row, step in enumerate(there):
            box = _one(step, x, _MARGIN + row * _DOWN)
            boxes.append(box)
            place[step.name] = box
    lines = dict.fromkeys(
        _line(place[name], place[step.name])
        for step in steps if step.name in place
        for name in step.after if name in place
    )  # fmt: skip
    return Drawing(
        max((box.x for box in boxes), default=0) + WIDTH + _MARGIN,
        max((box.y for box in boxes), default=0) + HEIGHT + _MARGIN,
        tuple(boxes), tuple(lines), len(steps) - len(place),
    )  # fmt: skip


def _one(step: StepStatus, x: int, y: int) -> Box:
    return Box(x, y, step.name, _short(step.name), step.state, step.state, step.queue, step.task_id)


def _many(steps: Sequence[StepStatus], x: int) -> Box:
    counts = Counter(step.state for step in steps)
    worst = next((state for state in _WORST_FIRST if counts[state]), "Waiting")
    detail = ", ".join(f"{counts[state]} {state.lower()}" for state in _WORST_FIRST if counts[state])
    name = f"{len(steps)} steps"
    return Box(x, _MARGIN, f"{name}: {detail}", name, worst, f"{counts[worst]} {worst.lower()}")


def _line(from_: Box, to: Box) -> str:
    x, y = from_.x + WIDTH, from_.y + HEIGHT // 2
    end, at = to.x, to.y + HEIGHT // 2
    middle = (x + end) // 2
    return f"M{x} {y} C{middle} {y} {middle} {at} {end} {at}"


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
