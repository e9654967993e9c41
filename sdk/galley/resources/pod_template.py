"""The parts of a worker's pod that a queue's owner may decide.

An allow-list: to create a TaskQueue is to create pods, so a field is here only if it gives no rights beyond
the namespace's own objects, and none over the node. Fields are named, and mean, what they do in a pod;
`docs/how-to/pods.md` says of each why it is allowed or refused.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, field_validator, model_validator

from galley.resources.environment import EnvironmentSource, EnvironmentVariable
from galley.resources.meta import (
    Argument,
    Choice,
    Image,
    Key,
    LabelValue,
    Name,
    ObjectName,
    Part,
    Whole,
    refusal,
    refuse_repeats,
)
from galley.resources.placement import Affinity, Toleration, TopologySpread
from galley.resources.pod_resources import PodResources
from galley.resources.problem import shown
from galley.resources.rule import Rule, checked, quoted, without_repeats
from galley.resources.volume import (
    MOUNTS_DIFFER,
    VOLUMES_DIFFER,
    Volume,
    VolumeMount,
    refuse_repeated_mounts,
)

OWN_DOMAIN: Final = "galley.dev/"
OWN_LABELS: Final = ("app.kubernetes.io/name", "app.kubernetes.io/managed-by")
"""Labels by which the workers of a queue are found, beside those of our own domain."""

OWN_CONTAINERS: Final = ("worker",)

UNSAFE_ANNOTATIONS: Final = (
    "container.apparmor.security.beta.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/", "io.kubernetes.cri-o.", "io.katacontainers.",
    "k8s.v1.cni.cncf.io/", "v1.multus-cni.io/",
    "sidecar.istio.io/proxyImage", "sidecar.istio.io/userVolume", "sidecar.istio.io/bootstrapOverride",
    "proxy.istio.io/overrides", "dapr.io/sidecar-image", "dapr.io/api-token-secret",
    "dapr.io/app-token-secret", "dapr.io/env-from-secret", "vault.hashicorp.com/agent-image",
    "vault.hashicorp.com/agent-extra-secret", "vault.hashicorp.com/tls-secret",
)  # fmt: skip
"""What annotations begin with that take a pod out of the *restricted* profile, or give it devices or networks
of its node: kubelets, runtimes and network plugins act on them. Or with which those who put a container
beside the worker give that one a Secret without the label, a volume of the node, or another image."""


class PullSecret(Part):
    """A Secret with the credentials of an image registry."""

    name: ObjectName
    """Name of the Secret, in the queue's namespace."""


_OWN_KEY: Final = f"key.startsWith({quoted(OWN_DOMAIN)}) || key in [{', '.join(map(quoted, OWN_LABELS))}]"

_NOT_OUR_OWN: Final = Rule(
    f"!self.exists(key, {_OWN_KEY})",
    f"'{{{{self.filter(key, {_OWN_KEY})[0]}}}}' is set by Galley itself; choose another key",
)


_UNSAFE: Final = " || ".join(f"key.startsWith({quoted(each)})" for each in UNSAFE_ANNOTATIONS)

_SAFE: Final = Rule(
    f"!self.exists(key, {_UNSAFE})",
    f"'{{{{self.filter(key, {_UNSAFE})[0]}}}}' would weaken the restrictions of the pod; remove it",
)


SYSTEM_PRIORITY: Final = "system-"
"""What the names of the priority classes of a cluster's own components begin with."""

_NO_SYSTEM_PRIORITY: Final = Rule(
    f"!self.startsWith({quoted(SYSTEM_PRIORITY)})",
    "priority classes that begin with 'system-' are those of the cluster's own components; use another class",
)


class PullPolicy(StrEnum):
    """When an image is pulled."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class GroupChange(StrEnum):
    """When the group of a volume's files is changed."""

    ALWAYS = "Always"
    ON_ROOT_MISMATCH = "OnRootMismatch"


Id = Annotated[Whole, Field(ge=1, le=2**31 - 1)]
"""A user or group of Linux; 0, which is root, is refused."""


class SecurityContext(Part):
    """The parts of a pod's security context that do not weaken the *restricted* profile.

    Workers never run as root, cannot gain privileges, have no capabilities, and use the runtime's seccomp
    profile; none of that can be changed.
    """

    run_as_user: Id | None = None
    """User the worker runs as; 65532 when left out."""

    run_as_group: Id | None = None
    """Group the worker runs as; 65532 when left out."""

    fs_group: Id | None = None
    """Group of the files in volumes; 65532 when left out."""

    fs_group_change_policy: GroupChange | None = None
    """When the group of a volume's files is changed: `OnRootMismatch` is faster for large volumes."""

    supplemental_groups: tuple[Id, ...] = Field((), max_length=16)
    """Further groups of the worker, at most 16."""

    read_only_root_filesystem: Choice = True
    """Whether the container's own files cannot be written. If false, what is written there ends with the
    worker, and counts towards the node's disk."""


_MOUNTED: Final = "self.volumes.exists(volume, volume.name == mount.name)"


def _mounts_exist(mounts: str, at: str) -> Rule:
    """Return the rule that each mount names a volume."""
    return Rule(
        f"!has(self.{mounts}) || self.{mounts}.all(mount, has(self.volumes) && {_MOUNTED})",
        f"a mount in {mounts} names no volume of this template; add it to volumes, or correct the name",
        at,
    )


class InitContainer(Part):
    """A container that must succeed before the worker starts, with its restrictions and resources."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule("self.name != 'worker'", "'worker' is Galley's own container; choose another name", ".name")
        )
    )

    name: Name
    """Name of the container."""

    image: Image | None = None
    """Its image; the worker's when left out."""

    command: tuple[Argument, ...] = Field((), max_length=64)
    """Program and first arguments, at most 64; the image's own when left out."""

    args: tuple[Argument, ...] = Field((), max_length=64)
    """Arguments, at most 64."""

    env: tuple[EnvironmentVariable, ...] = Field(
        (), max_length=16, json_schema_extra=checked(without_repeats("variable", "name"))
    )
    """Variables in its environment, at most 16. Those of the worker are not passed on."""

    volume_mounts: tuple[VolumeMount, ...] = Field((), max_length=16, json_schema_extra=MOUNTS_DIFFER)
    """Where volumes appear in it, at most 16. It has no other folder to write to."""

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in OWN_CONTAINERS:
            raise refusal(f"{name!r} is Galley's own container", "choose another name")
        return name

    @field_validator("env")
    @classmethod
    def _variables_differ(cls, env: tuple[EnvironmentVariable, ...]) -> tuple[EnvironmentVariable, ...]:
        refuse_repeats([variable.name for variable in env], "variable", "name")
        return env

    @field_validator("volume_mounts")
    @classmethod
    def _mounts_differ(cls, mounts: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
        return refuse_repeated_mounts(mounts)


class PodTemplate(Part):
    """What may be added to the pods of a queue's workers."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            _mounts_exist("volumeMounts", ".volumeMounts"),
            Rule(
                "!has(self.initContainers) || self.initContainers.all(container, "
                "!has(container.volumeMounts) || container.volumeMounts.all(mount, "
                f"has(self.volumes) && {_MOUNTED}))",
                "a mount of an init container names no volume of this template; "
                "add it to volumes, or correct the name",
                ".initContainers",
            ),
        )
    )

    labels: dict[Key, LabelValue] = Field(
        default_factory=dict, max_length=32, json_schema_extra=checked(_NOT_OUR_OWN)
    )
    """Labels of the pods, at most 32, in addition to those that Galley uses."""

    annotations: dict[Key, Annotated[str, Field(max_length=16_384)]] = Field(
        default_factory=dict, max_length=32, json_schema_extra=checked(_NOT_OUR_OWN, _SAFE)
    )
    """Annotations of the pods, at most 32 of at most 16384 characters each. Those that change the pod's
    AppArmor or seccomp profile, its runtime or its networks are refused, and so are those that give a
    container of Istio, Dapr or Vault another image, volumes or Secrets."""

    service_account_name: ObjectName | None = None
    """ServiceAccount whose rights the handlers have, with its token mounted. A queue that names none gets
    one of its own, without rights and without a token."""

    image_pull_secrets: tuple[PullSecret, ...] = Field(
        (), max_length=16, json_schema_extra=checked(without_repeats("Secret", "name"))
    )
    """Secrets the worker's image is pulled with, at most 16. Each needs the label for workers."""

    env: tuple[EnvironmentVariable, ...] = Field(
        (), max_length=64, json_schema_extra=checked(without_repeats("variable", "name"))
    )
    """Variables in the environment of each worker, at most 64."""

    env_from: tuple[EnvironmentSource, ...] = Field((), max_length=16)
    """ConfigMaps and Secrets whose entries become variables, at most 16; `env` takes precedence."""

    volumes: tuple[Volume, ...] = Field((), max_length=16, json_schema_extra=VOLUMES_DIFFER)
    """Volumes of the pods, at most 16."""

    volume_mounts: tuple[VolumeMount, ...] = Field((), max_length=16, json_schema_extra=MOUNTS_DIFFER)
    """Where volumes appear in the worker's container, at most 16."""

    init_containers: tuple[InitContainer, ...] = Field(
        (), max_length=4, json_schema_extra=checked(without_repeats("container", "name"))
    )
    """Containers that run before the worker, at most 4. Only if the operator allows them
    (`operator.allowInitContainers` of the chart)."""

    security_context: SecurityContext = SecurityContext.model_construct()
    """Users and groups of the worker, and whether its own files can be written."""

    image_pull_policy: PullPolicy | None = None
    """When the image is pulled: `Always`, `IfNotPresent` or `Never`; left out, as Kubernetes chooses by the
    image's tag."""

    resources: PodResources = PodResources.model_construct()
    """What one worker requests of its node, and its upper bounds."""

    node_selector: dict[Key, LabelValue] = Field(default_factory=dict, max_length=16)
    """Labels a node must have for workers to run there, at most 16."""

    tolerations: tuple[Toleration, ...] = Field((), max_length=16)
    """Taints of nodes that do not keep workers away, at most 16."""

    affinity: Affinity | None = None
    """Which nodes and which neighbours workers need or prefer."""

    topology_spread_constraints: tuple[TopologySpread, ...] = Field((), max_length=4)
    """How evenly workers are spread over nodes or zones, at most 4 rules."""

    priority_class_name: ObjectName | None = Field(None, json_schema_extra=checked(_NO_SYSTEM_PRIORITY))
    """PriorityClass of the pods: which are scheduled first, and which are evicted first. Those that begin
    with `system-` are refused: workers would take the place of the cluster's own components."""

    @field_validator("labels", "annotations")
    @classmethod
    def _not_our_own(cls, words: dict[str, str]) -> dict[str, str]:
        for key in words:
            if key.startswith(OWN_DOMAIN) or key in OWN_LABELS:
                raise refusal(f"{shown(key)} is set by Galley itself", "choose another key", key)
        return words

    @field_validator("annotations")
    @classmethod
    def _safe(cls, annotations: dict[str, str]) -> dict[str, str]:
        for key in annotations:
            if key.startswith(UNSAFE_ANNOTATIONS):
                raise refusal(f"{shown(key)} would weaken the restrictions of the pod", "remove it", key)
        return annotations

    @field_validator("priority_class_name")
    @classmethod
    def _no_system_priority(cls, name: str | None) -> str | None:
        if name is not None and name.startswith(SYSTEM_PRIORITY):
            raise refusal(
                "priority classes that begin with 'system-' are those of the cluster's own components",
                "use another class",
            )
        return name

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

    @field_validator("volumes")
    @classmethod
    def _volumes_differ(cls, volumes: tuple[Volume, ...]) -> tuple[Volume, ...]:
        refuse_repeats([volume.name for volume in volumes], "volume", "name")
        return volumes

    @field_validator("volume_mounts")
    @classmethod
    def _mounts_differ(cls, mounts: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
        return refuse_repeated_mounts(mounts)

    @field_validator("init_containers")
    @classmethod
    def _containers_differ(cls, containers: tuple[InitContainer, ...]) -> tuple[InitContainer, ...]:
        refuse_repeats([container.name for container in containers], "container", "name")
        return containers

    @model_validator(mode="after")
    def _mounts_name_volumes(self) -> "PodTemplate":
        names = {volume.name for volume in self.volumes}
        if any(mount.name not in names for mount in self.volume_mounts):
            raise refusal(
                "a mount in volumeMounts names no volume of this template",
                "add it to volumes, or correct the name", "volumeMounts",
            )  # fmt: skip
        if any(mount.name not in names for each in self.init_containers for mount in each.volume_mounts):
            raise refusal(
                "a mount of an init container names no volume of this template",
                "add it to volumes, or correct the name", "initContainers",
            )  # fmt: skip
        return self

    def secrets(self) -> set[tuple[str, bool]]:
        """Return the Secrets whose content handlers can read, each with whether it may be missing."""
        sources = [each.secret_ref for each in self.env_from]
        variables = [*self.env, *(each for container in self.init_containers for each in container.env)]
        keys = [each.value_from.secret_key_ref for each in variables if each.value_from is not None]
        named = {(each.name, each.optional) for each in (*sources, *keys) if each is not None}
        volumes = [volume.secret for volume in self.volumes if volume.secret is not None]
        return named | {(each.secret_name, each.optional) for each in volumes}

    def claims(self) -> set[tuple[str, bool]]:
        """Return the PersistentVolumeClaims that workers mount; none of them may be missing."""
        claims = [volume.persistent_volume_claim for volume in self.volumes]
        return {(claim.claim_name, False) for claim in claims if claim is not None}
