"""Rules that an API server holds against a manifest, beside the shape of its fields.

Each stands next to the validator of the model that says the same in Python, and speaks its words:
`problem; hint`. They travel in the models' JSON schema, from which the resource definitions are made.
"""

import re
from typing import Any, Final, NamedTuple

VALIDATIONS: Final = "x-kubernetes-validations"
"""Where a schema keeps its rules."""

INT_OR_STRING: Final = "x-kubernetes-int-or-string"
"""What a schema says of a value that may be a whole number or a text."""

_VALUE: Final = re.compile(r"\{\{(.+?)\}\}")


LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_KEYS: Final = "x-kubernetes-list-map-keys"


class Rule(NamedTuple):
    """One rule, in CEL."""

    holds: str
    """True for what is right; `self` is the part or the value it stands at."""

    says: str
    """The message of a violation, as `problem; hint`. `{{expression}}` stands for a value."""

    at: str = ""
    """The field of the part that is to blame, such as `.maxWorkers`."""

    reason: str = ""
    """How the API server classes the refusal; `FieldValueInvalid` when left out."""

    def schema(self) -> dict[str, str]:
        """Return the rule as a schema has it."""
        spoken = (
            {"messageExpression": _expression(self.says)}
            if _VALUE.search(self.says)
            else {"message": self.says}
        )
        classed = {"reason": self.reason, "fieldPath": self.at}
        return {"rule": self.holds, **spoken, **{key: value for key, value in classed.items() if value}}


def checked(*rules: Rule) -> dict[str, Any]:
    """Return what a field, or a part's configuration, takes as `json_schema_extra` to be checked by rules."""
    return {VALIDATIONS: [rule.schema() for rule in rules]}


def keyed_by(field: str) -> dict[str, Any]:
    """Return the `json_schema_extra` of a list whose entries have writers of their own, by a field."""
    return {LIST_TYPE: "map", LIST_KEYS: [field]}


def quoted(text: str) -> str:
    """Return a text as a literal of CEL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def without_repeats(what: str, key: str = "") -> Rule:
    """Return the rule that no value, or no value of a key, stands in a list twice."""
    field = f".{key}" if key else ""
    once = f"self.exists_one(other, other{field} == each{field})"
    twice = f"self.filter(each, !{once})[0]{field}"
    return Rule(
        f"self.all(each, {once})",
        f"{what} '{{{{{twice}}}}}' stands in the list twice; remove or rename one of the two",
    )


def _expression(says: str) -> str:
    """Return an expression for what is said, by `format`: nothing bounds the cost of joining texts."""
    text, *values = _VALUE.split(says.replace("%", "%%"))
    shape = text + "".join(f"%s{following}" for following in values[1::2])
    return f"{quoted(shape)}.format([{', '.join(values[::2])}])"
