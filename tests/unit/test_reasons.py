"""Every reason a worker may write into a task's failure is explained to people."""

import ast
import re
from pathlib import Path

from docs.generate.reasons import REASONS
from galley.errors import EnvelopeInvalid, RetryAfter, Snooze
from galley.history import WORKER_LOST

WORKER = Path(__file__).parent.parent.parent / "worker-image" / "galley_worker"


def _written(node: ast.AST) -> list[str]:
    """Return the reasons a piece of code spells: given to a Failure or a Failed, or made a constant."""
    found: list[ast.expr] = []
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Failure", "Failed")
    ):
        found = node.args
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id.isupper():
        found = [node.value] if node.value else []
    texts = [each.value for each in found if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return [text for text in texts if re.fullmatch(r"([A-Z][a-z]+)+", text)]


def test_the_reasons_explained_are_those_the_worker_writes() -> None:
    nodes = (node for path in WORKER.rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    written = {reason for node in nodes for reason in _written(node)}
    of_handlers = {error.__name__ for error in (RetryAfter, Snooze)}
    assert written | of_handlers | {EnvelopeInvalid.reason, WORKER_LOST} == set(REASONS)
