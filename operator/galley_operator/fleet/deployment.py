"""What a Deployment tells: how many pods there should be, and whether they are being replaced."""

from typing import Final

from msgspec import Struct, field

from galley_operator.fleet.pods import Metadata, PodCondition, PodSpec
from galley_operator.fleet.trouble import Trouble

_QUOTA: Final = "exceeded quota"


class PodTemplate(Struct, frozen=True):
    """What its pods are made from."""

    spec: PodSpec = PodSpec()


class DeploymentSpec(Struct, frozen=True):
    """What is wanted."""

    replicas: int = 1
    template: PodTemplate = PodTemplate()


class DeploymentStatus(Struct, frozen=True, rename="camel"):
    """What the Deployment's controller says."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    conditions: list[PodCondition] = []


class Deployment(Struct, frozen=True):
    """A Deployment, of which only what is needed here is read."""

    metadata: Metadata
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = field(default_factory=DeploymentStatus)

    @property
    def uid(self) -> str:
        """Its identity."""
        return self.metadata.uid

    def belongs_to(self, uid: str) -> bool:
        """Return whether it is of the TaskQueue with a uid."""
        return any(owner.uid == uid for owner in self.metadata.owner_references)

    @property
    def rolling(self) -> bool:
        """Whether pods of an earlier template are still being replaced."""
        return self.status.updated_replicas != self.status.replicas

    @property
    def settled(self) -> bool:
        """Whether its controller has taken in all that was asked of it, and replaces nothing."""
        return self.status.observed_generation >= self.metadata.generation and not self.rolling

    @property
    def trouble(self) -> Trouble | None:
        """Why its pods cannot be made at all."""
        for condition in self.status.conditions:
            if condition.type == "ReplicaFailure" and condition.status == "True":
                quota = _QUOTA in condition.message
                return Trouble(
                    "QuotaExceeded" if quota else "PodsRefused",
                    f"pods of {self.metadata.name} are refused: {condition.message}; "
                    + (
                        "raise the namespace's quota, or lower spec.scaling.maxWorkers"
                        if quota
                        else "change what refuses them, or spec.worker.template"
                    ),
                )
        return None


def newer(one: Deployment | None, other: Deployment | None) -> Deployment | None:
    """Return which of two sights of a Deployment is the later one; the first, if they are of two lives."""
    if one is None or other is None or one.metadata.uid != other.metadata.uid:
        return one
    if one.metadata.generation != other.metadata.generation:
        return max(one, other, key=lambda each: each.metadata.generation)
    return one
