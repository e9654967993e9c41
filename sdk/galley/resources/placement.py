"""Where workers may run: tolerations, affinity, and how they spread."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, model_validator

from galley.resources.meta import Key, LabelValue, Part, Whole, refusal
from galley.resources.rule import Rule, checked


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
                "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "has no meaning with the operator Exists; remove it, or write operator: Equal",
                ".value",
            ),
            Rule(
                "has(self.operator) && self.operator != 'Equal' || has(self.key)",
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
    """Seconds a worker may stay on a node that gets the taint, where the effect is NoExecute; without
    limit when left out."""

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


class SelectorOperator(StrEnum):
    """How the values of a label are compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


_WITH_VALUES: Final = (SelectorOperator.IN, SelectorOperator.NOT_IN, SelectorOperator.GT, SelectorOperator.LT)


class LabelRequirement(Part):
    """A condition on one label."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "(self.operator in ['In', 'NotIn', 'Gt', 'Lt']) == "
                "(has(self.values) && size(self.values) > 0)",
                "does not fit the operator {{self.operator}}; Exists and DoesNotExist take no values, "
                "the others need them",
                ".values",
            )
        )
    )

    key: Key
    """Key of the label."""

    operator: SelectorOperator
    """How it is compared: `In`, `NotIn`, `Exists`, `DoesNotExist`; for nodes also `Gt` and `Lt`."""

    values: tuple[LabelValue, ...] = Field((), max_length=32)
    """Values to compare with, at most 32."""

    @model_validator(mode="after")
    def _values_fit(self) -> "LabelRequirement":
        if (self.operator in _WITH_VALUES) != bool(self.values):
            raise refusal(
                f"does not fit the operator {self.operator.value}",
                "Exists and DoesNotExist take no values, the others need them", "values",
            )  # fmt: skip
        return self


class NodeSelectorTerm(Part):
    """Labels of a node that must all fit."""

    match_expressions: tuple[LabelRequirement, ...] = Field(min_length=1, max_length=16)
    """Conditions on the node's labels, 1 to 16."""


class NodeSelector(Part):
    """Nodes of which a worker needs one."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = Field(min_length=1, max_length=8)
    """Kinds of nodes, 1 to 8; one of them is enough."""


Weight = Annotated[Whole, Field(ge=1, le=100)]


class PreferredNodes(Part):
    """Nodes that are better than others."""

    weight: Weight
    """How much better, from 1 to 100."""

    preference: NodeSelectorTerm
    """Labels of those nodes."""


class NodeAffinity(Part):
    """Which nodes a worker needs, and which it prefers."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Nodes a worker needs."""

    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodes, ...] = Field((), max_length=8)
    """Nodes a worker prefers, at most 8 kinds."""


class PodSelector(Part):
    """Pods of the queue's namespace, by their labels."""

    match_labels: dict[Key, LabelValue] = Field(default_factory=dict, max_length=16)
    """Labels with their values, at most 16."""

    match_expressions: tuple[LabelRequirement, ...] = Field((), max_length=16)
    """Further conditions, at most 16."""


class PodAffinityTerm(Part):
    """Pods to be near to, or far from. Other namespaces than the queue's cannot be named."""

    topology_key: Key
    """Label of nodes; nodes with the same value are near to each other, as with
    `kubernetes.io/hostname`."""

    label_selector: PodSelector
    """Which pods."""


class WeightedPodAffinityTerm(Part):
    """A preference for or against the neighbourhood of pods."""

    weight: Weight
    """How strong it is, from 1 to 100."""

    pod_affinity_term: PodAffinityTerm
    """The pods."""


class PodAffinity(Part):
    """Pods of the namespace that a worker should be near to, or far from."""

    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = Field((), max_length=8)
    """What must hold, at most 8."""

    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodAffinityTerm, ...] = Field(
        (), max_length=8
    )
    """What should hold, at most 8."""


class Affinity(Part):
    """Which nodes and which neighbours workers need or prefer."""

    node_affinity: NodeAffinity | None = None
    """Nodes."""

    pod_affinity: PodAffinity | None = None
    """Pods to be near to."""

    pod_anti_affinity: PodAffinity | None = None
    """Pods to be far from."""


class Unsatisfiable(StrEnum):
    """What happens to a worker that cannot be placed evenly."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class TopologySpread(Part):
    """How evenly the queue's workers are spread. They are the pods that are counted."""

    max_skew: Whole = Field(1, ge=1, le=100)
    """Largest difference between the numbers of workers in two places."""

    topology_key: Key
    """Label of nodes whose values are the domains, such as `topology.kubernetes.io/zone`."""

    when_unsatisfiable: Unsatisfiable = Unsatisfiable.SCHEDULE_ANYWAY
    """Whether a worker that would exceed `maxSkew` waits (`DoNotSchedule`) or not."""
