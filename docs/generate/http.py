"""`docs/reference/http.md`: the operations of the HTTP API, from the same values as its OpenAPI document."""

import json
from collections.abc import Iterator

from galley_gateway.app import OPERATIONS
from galley_gateway.operation import ROOT, Operation

_HEAD = f"""# HTTP API

All paths are below `{ROOT}/namespaces/NAMESPACE`.
The gateway serves the same as an
OpenAPI 3.1 document at `/openapi.json`, with the schema of each body. How to use it:
[Use Galley over HTTP](../how-to/http.md).

"Needs" names the verb and the resource of `galley.dev` that the user needs in the namespace; a Role
can also grant it for one queue ([authorization](../how-to/http.md#authorization)).
"""


def document() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(line for each in OPERATIONS for line in _described(each))])


def _described(operation: Operation) -> Iterator[str]:
    yield f"## {operation.summary}\n"
    right = operation.right
    yield f"`{operation.method} {operation.path}`, `{operation.id}`."
    yield f"Needs `{right.verb}` on `{right.resource}`.\n"
    if operation.meaning:
        yield f"{operation.meaning}\n"
    if operation.parameters:
        yield "| parameter | in | meaning |"
        yield "|---|---|---|"
        yield from (f"| `{each.name}` | {each.where} | {each.meaning} |" for each in operation.parameters)
        yield ""
    if operation.example is not None:
        yield f"```json\n{json.dumps(operation.example, indent=2)}\n```\n"
    yield from (f"- {status}: {meaning}" for status, meaning in operation.status)
    reasons = ", ".join(f"[`{kind.reason}`](errors.md)" for kind in operation.fails)
    if reasons:
        yield f"- fails with {reasons}"
    yield ""
