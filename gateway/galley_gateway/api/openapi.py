"""The OpenAPI 3.1 document, made of the operations."""

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

import msgspec

from galley.bounds import NAME_PATTERN
from galley_gateway.api.model import Problem
from galley_gateway.errors import GatewayError, NotIdentified, NotPermitted, RateExceeded, RequestInvalid
from galley_gateway.operation import Operation
from galley_gateway.problem import MEDIA_TYPE, status_of

_IN_PATH: Final = re.compile(r"\{(\w+)\}")
_MEANING: Final = {
    "namespace": "The namespace of the queue.",
    "queue": "The name of the queue.",
    "id": "The id of the task, dead letter or workflow.",
    "name": "The name of the schedule or topic.",
}
_TEMPLATE: Final = "#/components/schemas/{name}"
_BEFORE: Final[dict[int, type[GatewayError]]] = {
    401: NotIdentified,
    403: NotPermitted,
    429: RateExceeded,
    400: RequestInvalid,
}
"""What any operation may answer before it begins."""


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the document."""
    operations = tuple(operations)
    shapes = dict.fromkeys(
        shape for each in operations for shape in (each.takes, each.answers) if shape is not None
    )
    (*_,), schemas = msgspec.json.schema_components((*shapes, Problem), ref_template=_TEMPLATE)
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.full_path, {})[each.method.lower()] = _described(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Galley",
            "version": version("galley-tasks"),
            "summary": "Submit tasks to queues, wait for them, and look after them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the Kubernetes cluster; `galley dev` needs none.",
                }
            },
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": f"{operation.meaning}\n\nNeeds the right to `{operation.right.verb}` "
        f"`{operation.right.resource}`.".strip(),
        "tags": [operation.right.resource],
        "parameters": [
            *(_in_path(name) for name in _IN_PATH.findall(operation.full_path)),
            *(
                {
                    "name": each.name,
                    "in": each.where,
                    "description": each.meaning,
                    "schema": dict(each.schema),
                }
                for each in operation.parameters
            ),
        ],
        "responses": _responses(operation),
    }
    if operation.takes is not None:
        content: dict[str, Any] = {"schema": _reference(operation.takes)}
        if operation.example is not None:
            content["example"] = operation.example
        raw: dict[str, Any] = {kind: {"schema": {"type": "object"}} for kind in operation.takes_raw}
        found["requestBody"] = {"required": True, "content": {"application/json": content, **raw}}
    return found


def _in_path(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if name in {"namespace", "queue"}:
        schema |= {"pattern": NAME_PATTERN, "maxLength": 63}
    return {"name": name, "in": "path", "required": True, "description": _MEANING[name], "schema": schema}


def _responses(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, meaning in operation.status:
        found[str(status)] = {"description": meaning}
        if operation.streams:
            found[str(status)]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
            continue
        if operation.answers is None:
            continue
        content: dict[str, Any] = {"schema": _reference(operation.answers)}
        if operation.example_answer is not None:
            content["example"] = operation.example_answer
        found[str(status)]["content"] = {"application/json": content}
    problems = {status: [before.reason] for status, before in _BEFORE.items()}
    for failure in operation.fails:
        problems.setdefault(status_of(failure), []).append(failure.reason)
    for status in sorted(problems):
        found[str(status)] = {
            "description": f"Reasons: {', '.join(problems[status])}.",
            "content": {MEDIA_TYPE: {"schema": _reference(Problem)}},
        }
    return found


def _reference(shape: type) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(name=shape.__name__)}
