"""`docs/reference/settings.md`: settings of queues, tasks, producers, workers and the operator."""

import inspect
from collections.abc import Iterator
from enum import StrEnum
from types import NoneType
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from galley.broker.connection import DEFAULT_SERVER
from galley.resources import Task, TaskQueue, TaskSchedule, Topic, Workflow
from galley.resources.description import descriptions
from galley.target import CREDENTIALS_VARIABLE, DEFAULT_NAMESPACE, NAMESPACE_VARIABLE, SERVER_VARIABLE
from galley.tls import VARIABLES
from galley_gateway.settings import PREFIX as GATEWAY_PREFIX
from galley_gateway.settings import GatewaySettings
from galley_operator.settings import PREFIX as OPERATOR_PREFIX
from galley_operator.settings import OperatorSettings
from galley_worker.settings import PREFIX, WorkerSettings

_BOUNDS: Final = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}

_PRODUCER: Final = (
    (SERVER_VARIABLE, "none",
     f"Address of NATS. With neither it nor a `galley dev`, the client tries `{DEFAULT_SERVER}`."),
    (NAMESPACE_VARIABLE, f"`{DEFAULT_NAMESPACE}`", "Namespace of the queues."),
    (CREDENTIALS_VARIABLE, "none",
     ("File with credentials for NATS: the key `nats.creds` of the Secret `galley-QUEUE-producer` (or "
      "`-manager`). It is read again at each reconnect. `galley dev` requires none and listens on "
      "127.0.0.1 only.")),
    (VARIABLES["ca"], "those of the system",
     ("File with the certificates of the authorities to trust for TLS, in PEM: the key `ca.crt` of the same "
      "Secret. With this or another variable for TLS, or a `tls://` address, a connection is never plain "
      "text; else it is encrypted if the server requires it.")),
    (VARIABLES["certificate"], "none", "File with an own certificate in PEM, if NATS requires one."),
    (VARIABLES["key"], f"`{VARIABLES['certificate']}`", "File with its private key in PEM."),
    (VARIABLES["server_name"], "the host of the address", "Name that the certificate of NATS must have."),
)  # fmt: skip


def document() -> str:
    """Return the page."""
    return "\n".join([
        "# Settings\n",
        "## A queue\n",
        _first_line(TaskQueue), "",
        *_table(_rows(TaskQueue)),
        "\n## A task\n",
        _first_line(Task), "",
        *_table(_rows(Task)),
        "\n## A schedule\n",
        _first_line(TaskSchedule), "",
        *_table(_rows(TaskSchedule)),
        "\n## A topic\n",
        _first_line(Topic), "",
        *_table(_rows(Topic)),
        "\n## A workflow\n",
        _first_line(Workflow), "",
        *_table(_rows(Workflow)),
        "\n## A producer\n",
        "For the command `galley`, and for `galley.Client()` in a program. Arguments (`--server`, `-n`,",
        "those of `connect`) take precedence over these variables, and these over the `galley dev` that",
        "runs in the current folder or one above it.\n",
        *_table(iter(_PRODUCER)),
        "\n## A worker\n",
        "`python -m galley_worker` reads these from its environment; `galley dev` sets them for its own.\n",
        *_table(_environment_rows(WorkerSettings, PREFIX)),
        "\n## The operator\n",
        "`python -m galley_operator` reads these from its environment; the chart sets them.\n",
        *_table(_environment_rows(OperatorSettings, OPERATOR_PREFIX)),
        "\n## The gateway\n",
        "`python -m galley_gateway` reads these from its environment, beside those of a producer; the chart",
        "sets them.\n",
        *_table(_environment_rows(GatewaySettings, GATEWAY_PREFIX)), "",
    ])  # fmt: skip


def _first_line(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").splitlines()[0]


def _rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        part, is_list = _part_in(field.annotation)
        yield path, _default(field, part), _described(model, name, part)
        if part is not None:
            yield from _rows(part, path + ("[]." if is_list else "."))


def _environment_rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        yield prefix + name.upper(), _default(field, None), _described(model, name, None)


def _table(rows: Iterator[tuple[str, str, str]]) -> list[str]:
    return [
        "| name | default | meaning |",
        "|---|---|---|",
        *(f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows),
    ]


def _part_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the model a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    inner = [each for each in get_args(annotation) if each not in (NoneType, Ellipsis)]
    found = [_part_in(each)[0] for each in inner]
    part = next((each for each in found if each is not None), None)
    return part, part is not None and NoneType not in get_args(annotation)


def _default(field: FieldInfo, part: type[BaseModel] | None) -> str:
    if field.is_required():
        return "required"
    if part is not None and isinstance(field.default, BaseModel):
        return ""
    if field.default is PydanticUndefined:
        return "`{}`" if field.default_factory is dict else "computed"
    return "none" if field.default in (None, "", ()) else f"`{_plain(field.default)}`"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_plain(each) for each in value) + "]"
    return value.value if isinstance(value, StrEnum) else str(value)


def _described(model: type[BaseModel], name: str, part: type[BaseModel] | None) -> str:
    text = " ".join(descriptions(model).get(name, "").split()).replace("|", "\\|")
    bounds = [] if part is not None else list(_bounds(model.model_fields[name]))
    return f"{text} *{', '.join(bounds)}*" if bounds else text


def _bounds(field: FieldInfo) -> Iterator[str]:
    for rule in _rules(field):
        for key, words in _BOUNDS.items():
            if (bound := getattr(rule, key, None)) is not None:
                yield words.format(f"{bound:,}")


def _rules(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    # An optional field keeps its rules one level down: Annotated[int, ...] | None.
    for inner in get_args(field.annotation):
        yield from getattr(inner, "__metadata__", ())
        for rule in getattr(inner, "__metadata__", ()):
            yield from getattr(rule, "metadata", ())
