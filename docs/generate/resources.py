"""`docs/reference/resources.md`: our kinds on a cluster, as people see them there."""

from collections.abc import Iterator
from typing import Final

from docs.generate.crds import CATEGORY, KINDS, Kind, definition
from docs.generate.structural import Schema

_ANCHORS: Final = {"TaskQueue": "a-queue", "Task": "a-task"}

_OPENING: Final = f"""\
# Resources on a cluster

`kubectl get {CATEGORY}` lists all of ours, and `kubectl explain` knows each field; [settings](settings.md)
has those that people write on one page, with defaults and bounds.
"""

_CLOSING: Final = """\
## What is checked where

An API server refuses what `galley dev` and `galley apply` refuse, and says the same wherever more is asked of
a value than its type and its bounds; several mistakes are told at once. Where it differs:

- Types, bounds and choices it words itself: `should be less than or equal to 256`.
- A field that does not exist is refused by `kubectl`; other clients have it dropped unless they ask for
  `fieldValidation=Strict`.
- `null` is a field left out, so that it gets its default, and an `input` of null is `{}`;
  a null inside it stays.
- It cannot see how large an `input` is. Beyond 512 KiB the operator refuses it, and a condition
  says so.
- YAML without quotes is read alike: `y`, `on` and `no` are booleans, `012` is 10, `0778` is 778, a date is
  its text, and whole numbers beyond 64 bits lose digits. `galley` refuses what `kubectl` guesses or drops: a
  key that occurs twice, a key that is not text (`y: 1`, `1: a`), merge keys (`<<`), tags such as `!!binary`.
- Requests above limits it finds for `cpu`, `memory` and `ephemeral-storage`; of others the queue's condition
  tells.
- Whether the queue, its lane, a Secret, a ConfigMap or an image exists is not asked then: it may come
  later. A condition says what is waited for.
- The `spec` of a Task never changes. Deleting a Task that has not ended cancels it.
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
            f"`kubectl scale {kind.short}/NAME --replicas=N`, and whatever else scales, sets "
            f"`{kind.scale.wanted.strip('.')}`; without it the number follows the work.\n"
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
