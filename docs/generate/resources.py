"""`docs/reference/resources.md`: all kinds as they appear on a cluster."""

from collections.abc import Iterator
from typing import Final

from docs.generate.crds import CATEGORY, KINDS, Kind, definition
from docs.generate.structural import Schema

_ANCHORS: Final = {
    "TaskQueue": "a-queue", "Task": "a-task", "TaskSchedule": "a-schedule", "Topic": "a-topic",
    "Workflow": "a-workflow",
}  # fmt: skip

_OPENING: Final = f"""\
# Resources on a cluster

`kubectl get {CATEGORY}` lists all of them, and `kubectl explain` describes each
field. [Settings](settings.md) lists the fields of `spec` with defaults and bounds.
"""

_CLOSING: Final = """\
## What is checked where

The API server rejects what `galley dev` and `galley apply` reject, with the same messages for everything
beyond types and bounds; several mistakes are reported at once. The differences:

- Types, bounds and choices have messages of the API server: `should be less than or equal to 256`.
- An unknown field is rejected by `kubectl`; for other clients the API server drops it unless they request
  `fieldValidation=Strict`.
- `null` means that the field is omitted and gets its default, and an `input` of null is `{}`; a null inside
  the input is kept.
- The API server does not check the size of an `input`. Beyond 512 KiB the operator rejects it, and a
  condition says so.
- YAML without quotes is read alike: `y`, `on` and `no` are booleans, `012` is 10, `0778` is 778, a date is
  its text, and whole numbers beyond 64 bits lose digits. `galley` refuses what `kubectl` guesses or drops:
  a key that occurs twice, a key that is not text (`y: 1`, `1: a`), a merge (`<<`) after a field that it
  changes, tags such as `!!binary`.
- Requests above limits are rejected for `cpu`, `memory` and `ephemeral-storage`; for other resources a
  condition of the queue reports them.
- Whether the queue, its lane, a Secret, a ConfigMap or an image exists is not checked then, since it may be
  created later. A condition says what is missing.
- Whether a cron line can fire and its time zone exists is checked by the operator, and a condition says so.
- Whether a Workflow has a cycle, or an unknown step, is checked by the operator, and a condition says so.
- The `spec` of a Task or a Workflow never changes. Deleting one that has not ended cancels it.
"""


def document() -> str:
    """Return the page."""
    return "\n".join([_OPENING, *(_section(kind) for kind in KINDS), _CLOSING])


def _section(kind: Kind) -> str:
    name = kind.model.__name__
    (version,) = definition(kind)["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    return "\n".join([
        f"## {name}\n",
        f"{schema['description']} For short: `{kind.short}`. Fields: [spec](settings.md#{_ANCHORS[name]}).\n",
        *_selectors(kind),
        *_scaling(kind),
        "| column | meaning |",
        "|---|---|",
        *_columns(kind),
        f"\n{schema['properties']['status']['description']}\n",
        "| field | meaning |",
        "|---|---|",
        *_fields(schema["properties"]["status"], "status."),
        "",
    ])  # fmt: skip


def _selectors(kind: Kind) -> Iterator[str]:
    if kind.selectable:
        paths = ", ".join(f"`{path.strip('.')}`" for path in kind.selectable)
        yield f"Selected with `--field-selector` by {paths}.\n"


def _scaling(kind: Kind) -> Iterator[str]:
    if kind.scale is not None:
        yield (
            f"`kubectl scale {kind.short}/NAME --replicas=N` sets `{kind.scale.wanted.strip('.')}`, "
            "as does any other client of the scale subresource. Without it the number follows the backlog.\n"
        )


def _columns(kind: Kind) -> Iterator[str]:
    for column in kind.columns:
        where = ", with `-o wide`" if column.wide else ""
        yield f"| `{column.name.upper()}`{where} | {column.says} |"


def _fields(schema: Schema, prefix: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield f"| `{prefix}{name}` | {field['description']} |"
        if name != "conditions":  # as everywhere in Kubernetes
            yield from _fields(
                field.get("items", field), f"{prefix}{name}{'[].' if 'items' in field else '.'}"
            )
