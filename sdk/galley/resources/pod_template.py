"""The parts of a worker's pod that a queue's owner may decide: an allow-list, since a queue makes pods.

Fields are named, and mean, what they do in a pod.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from galley.resources.meta import (
    QUANTITY_PATTERN,
    Choice,
    EnvironmentName,
    Key,
    LabelValue,
    ObjectName,
    Part,
    Whole,
    refusal,
    refuse_repeats,
)
from galley.resources.problem import shown
from galley.resources.rule import INT_OR_STRING, Rule, checked, quoted, without_repeats

OWN_ENVIRONMENT: Final = "GALLEY_"
"""How the variables begin that a worker is told its own things by."""

OWN_DOMAIN: Final = "galley.dev/"
OWN_LABELS: Final = ("app.kubernetes.io/name", "app.kubernetes.io/managed-by")
"""Labels that the workers of a queue are found by, beside those of our own domain."""

_FACTORS: Final = {"": Decimal(1), "m": Decimal("0.001")} | {
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
    digits = quantity.rstrip("mkKMGTPEi")
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


class PodResources(Part):
    """What one worker takes of its node."""

    model_config = ConfigDict(json_schema_extra=checked(_LIMITS_ABOVE_REQUESTS))

    requests: dict[Key, Quantity] = Field(default_factory=dict, max_length=16)
    """What a node must have free for a worker, by name of the resource (`cpu`, `memory`), at most 16."""

    limits: dict[Key, Quantity] = Field(default_factory=dict, max_length=16)
    """What a worker gets at most, at most 16. One that takes more memory than that is killed, which
    counts as a crash of the tasks it runs."""

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


class TolerationOperator(StrEnum):
    """How a toleration is compared with a taint."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Part):
    """A taint of nodes that does not keep workers away."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "has no meaning with the operator Exists; remove it, or write operator: Equal",
                ".value",
            ),
            Rule(
                "self.operator != 'Equal' || has(self.key)",
                "is Equal, and there is no key; add key, or write operator: Exists",
                ".operator",
            ),
            Rule(
                "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
                "has a meaning with the effect NoExecute only; remove it, or write effect: NoExecute",
                ".tolerationSeconds",
            ),
        )
    )

    key: Key | None = None
    """Key of the taint; left out, with the operator Exists, it is any taint."""

    operator: TolerationOperator = TolerationOperator.EQUAL
    """`Equal` compares the value, too; `Exists` asks for the key alone."""

    value: LabelValue | None = None
    """Value of the taint, where the operator is Equal."""

    effect: TaintEffect | None = None
    """Effect of the taint; left out, it is any."""

    toleration_seconds: Annotated[Whole, Field(ge=0, le=2_592_000)] | None = None
    """Seconds a worker may stay on a node that gets the taint, where the effect is NoExecute; for ever
    when left out."""

    @model_validator(mode="after")
    def _fits_its_operator(self) -> "Toleration":
        if self.operator is TolerationOperator.EXISTS and self.value:
            raise refusal(
                "has no meaning with the operator Exists", "remove it, or write operator: Equal", "value"
            )
        if self.operator is TolerationOperator.EQUAL and self.key is None:
            raise refusal("is Equal, and there is no key", "add key, or write operator: Exists", "operator")
        if self.toleration_seconds is not None and self.effect is not TaintEffect.NO_EXECUTE:
            raise refusal(
                "has a meaning with the effect NoExecute only", "remove it, or write effect: NoExecute",
                "tolerationSeconds",
            )  # fmt: skip
        return self


class SecretKeyRef(Part):
    """One entry of a Secret."""

    name: ObjectName
    """Name of the Secret, in the queue's namespace."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key of the entry."""

    optional: Choice = False
    """Whether workers start without the variable where there is no such entry; else they wait for it."""


class ValueFrom(Part):
    """Where a variable's value is kept."""

    secret_key_ref: SecretKeyRef
    """The entry of a Secret that holds it. A worker reads it when it starts, so a change of the Secret
    reaches workers that start afterwards."""


class EnvironmentVariable(Part):
    """A variable in the environment of each worker, for its handlers."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                f"!self.name.startsWith({quoted(OWN_ENVIRONMENT)})",
                f"'{{{{self.name}}}}' is set by Galley itself; choose a name without {OWN_ENVIRONMENT}",
                ".name",
            ),
            Rule(
                "has(self.value) || has(self.valueFrom)",
                'has neither value nor valueFrom; add one of the two; value: "" is empty',
            ),
            Rule(
                "!has(self.value) || !has(self.valueFrom)",
                "has both value and valueFrom; remove one of the two",
            ),
        )
    )

    name: EnvironmentName
    """Name of the variable. Names that begin with GALLEY_ are Galley's own."""

    value: Annotated[str, Field(max_length=32_768)] | None = None
    """Its value, at most 32768 characters; `$(NAME)` stands for a variable further up in the list."""

    value_from: ValueFrom | None = None
    """Where its value is kept, instead of `value`: secrets do not belong into a queue."""

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name.startswith(OWN_ENVIRONMENT):
            raise refusal(f"{name!r} is set by Galley itself", f"choose a name without {OWN_ENVIRONMENT}")
        return name

    @model_validator(mode="after")
    def _one_value(self) -> "EnvironmentVariable":
        if self.value is None and self.value_from is None:
            raise refusal("has neither value nor valueFrom", 'add one of the two; value: "" is empty')
        if self.value is not None and self.value_from is not None:
            raise refusal("has both value and valueFrom", "remove one of the two")
        return self


class PullSecret(Part):
    """A Secret with the credentials of an image registry."""

    name: ObjectName
    """Name of the Secret, in the queue's namespace."""


_OWN_KEY: Final = f"key.startsWith({quoted(OWN_DOMAIN)}) || key in [{', '.join(map(quoted, OWN_LABELS))}]"

_NOT_OUR_OWN: Final = Rule(
    f"!self.exists(key, {_OWN_KEY})",
    f"'{{{{self.filter(key, {_OWN_KEY})[0]}}}}' is set by Galley itself; choose another key",
)


class PodTemplate(Part):
    """What may be added to the pods of a queue's workers."""

    labels: dict[Key, LabelValue] = Field(
        default_factory=dict, max_length=32, json_schema_extra=checked(_NOT_OUR_OWN)
    )
    """Labels of the pods, at most 32, beside those Galley finds them by."""

    annotations: dict[Key, Annotated[str, Field(max_length=16_384)]] = Field(
        default_factory=dict, max_length=32, json_schema_extra=checked(_NOT_OUR_OWN)
    )
    """Annotations of the pods, at most 32 of at most 16384 characters each."""

    service_account_name: ObjectName | None = None
    """ServiceAccount whose rights the handlers have, with its token mounted. A queue that names none gets
    one of its own, without rights and without a token."""

    image_pull_secrets: tuple[PullSecret, ...] = Field(
        (), max_length=16, json_schema_extra=checked(without_repeats("Secret", "name"))
    )
    """Secrets the worker's image is pulled with, at most 16."""

    env: tuple[EnvironmentVariable, ...] = Field(
        (), max_length=64, json_schema_extra=checked(without_repeats("variable", "name"))
    )
    """Variables in the environment of each worker, at most 64."""

    resources: PodResources = PodResources()
    """What one worker requests of its node, and gets at most."""

    node_selector: dict[Key, LabelValue] = Field(default_factory=dict, max_length=16)
    """Labels a node must have for workers to run there, at most 16."""

    tolerations: tuple[Toleration, ...] = Field((), max_length=16)
    """Taints of nodes that do not keep workers away, at most 16."""

    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods: which of them are placed first, and which go where room is short."""

    @field_validator("labels", "annotations")
    @classmethod
    def _not_our_own(cls, words: dict[str, str]) -> dict[str, str]:
        for key in words:
            if key.startswith(OWN_DOMAIN) or key in OWN_LABELS:
                raise refusal(f"{shown(key)} is set by Galley itself", "choose another key", key)
        return words

    @field_validator("env")
    @classmethod
    def _names_differ(cls, env: tuple[EnvironmentVariable, ...]) -> tuple[EnvironmentVariable, ...]:
        refuse_repeats([variable.name for variable in env], "variable", "name")
        return env

    @field_validator("image_pull_secrets")
    @classmethod
    def _secrets_differ(cls, secrets: tuple[PullSecret, ...]) -> tuple[PullSecret, ...]:
        refuse_repeats([secret.name for secret in secrets], "Secret", "name")
        return secrets
