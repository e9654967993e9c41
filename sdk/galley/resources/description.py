"""Descriptions of fields: the texts below them in the code.

pydantic could read them when a class is made (`use_attribute_docstrings`), which takes a fifth of the start
of each process. Only error messages and generated documents need them, so they are read there.
"""

import ast
import inspect
import textwrap
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel


@cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each field of a model that has one, by the field's name in Python."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _below_fields(base)
    return {name: text for name, text in found.items() if name in model.model_fields}


def _below_fields(model: type[BaseModel]) -> dict[str, str]:
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):
        # It was made at run time, or its file is not there.
        return {}
    [definition] = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }  # fmt: skip


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation holds, in a list or an option too; None if it holds none."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := model_in(part))), None)
