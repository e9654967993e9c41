"""What a worker requests of its node, and its upper bounds."""

from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from galley.resources.meta import QUANTITY_PATTERN, Key, Part, refusal
from galley.resources.rule import INT_OR_STRING, Rule, checked, quoted

_FACTORS: Final = {"": Decimal(1), "m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9")} | {
    f"{letter}{suffix}": Decimal(step) ** power
    for suffix, step in (("", 1000), ("i", 1024))
    for power, letter in enumerate((("K" if suffix else "k"), *"MGTPE"), start=1)
}


def _written(value: Any) -> Any:
    """Return a quantity as text: a whole number needs no quotes, as in a pod."""
    if isinstance(value, float) or (isinstance(value, int) and value >= 2**63):
        raise refusal(f"must be a whole number or text, not {value!r}", f'put it in quotes: "{value!r}"')
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(pattern=QUANTITY_PATTERN, max_length=32),
    BeforeValidator(_written),
    WithJsonSchema({INT_OR_STRING: True, "pattern": QUANTITY_PATTERN}),
]
"""An amount as Kubernetes writes it: `2`, `500m`, `1.5Gi`."""


def amount(quantity: str) -> Decimal:
    """Return the number a quantity stands for."""
    digits = quantity.rstrip("numkKMGTPEi")
    return Decimal(digits) * _FACTORS[quantity[len(digits) :]]


_ABOVE_ITS_LIMIT: Final = (
    "name in self.requests && name in self.limits "
    "&& isQuantity(string(self.requests[name])) && isQuantity(string(self.limits[name])) "
    "&& quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name])))"
)

# The cost of a rule over whatever names there are is too high: the API server knows no bound of a quantity.
_LIMITED: Final = "['cpu', 'memory', 'ephemeral-storage']"

_LIMITS_ABOVE_REQUESTS: Final = Rule(
    f"!has(self.requests) || !has(self.limits) || !{_LIMITED}.exists(name, {_ABOVE_ITS_LIMIT})",
    f"requests of {{{{{_LIMITED}.filter(name, {_ABOVE_ITS_LIMIT})[0]}}}} are above its limit; "
    "lower the request, or raise the limit",
    ".limits",
)


_TOO_LITTLE: Final = (
    "name in amounts && isQuantity(string(amounts[name])) "
    "&& quantity(string(amounts[name])).isLessThan(quantity('1Mi')) "
    "&& quantity(string(amounts[name])).isGreaterThan(quantity('0'))"
)
_BYTES: Final = ("memory", "ephemeral-storage")
_LEAST_BYTES: Final = 1024**2


def _enough(part: str) -> Rule:
    """Return the rule that an amount of bytes is not a typing error: `128m` is an eighth of a byte."""
    little = _TOO_LITTLE.replace("amounts", f"self.{part}")
    names = f"[{', '.join(map(quoted, _BYTES))}]"
    return Rule(
        f"!has(self.{part}) || !{names}.exists(name, {little})",
        f"{part} of {{{{{names}.filter(name, {little})[0]}}}} are below 1Mi; m means thousandths of a byte, "
        "write Mi or Gi",
        f".{part}",
    )


class PodResources(Part):
    """What one worker takes of its node."""

    model_config = ConfigDict(
        json_schema_extra=checked(_LIMITS_ABOVE_REQUESTS, _enough("requests"), _enough("limits"))
    )

    requests: dict[Key, Quantity] = Field(default_factory=dict, max_length=16)
    """What a node must have free for a worker, by name of the resource (`cpu`, `memory`), at most 16.
    Amounts are written as in Kubernetes: `500m` of cpu is half a core, `128Mi` of memory 128 MiB."""

    limits: dict[Key, Quantity] = Field(default_factory=dict, max_length=16)
    """Upper bounds for a worker, at most 16. A worker that exceeds its memory is killed, which counts as
    a crash of the tasks it runs."""

    @model_validator(mode="after")
    def _bytes_are_enough(self) -> "PodResources":
        for part in ("requests", "limits"):
            for name in _BYTES:
                written = getattr(self, part).get(name, "0")
                if 0 < amount(written) < _LEAST_BYTES:
                    raise refusal(
                        f"{part} of {name} are below 1Mi: {written}",
                        "m means thousandths of a byte, write Mi or Gi", part, name,
                    )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _limits_above_requests(self) -> "PodResources":
        for name, requested in self.requests.items():
            limit = self.limits.get(name)
            if limit is not None and amount(requested) > amount(limit):
                raise refusal(
                    f"requests of {name} are above its limit: {requested}, and {limit}",
                    "lower the request, or raise the limit", "limits", name,
                )  # fmt: skip
        return self
