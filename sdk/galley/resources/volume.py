"""Volumes of a worker's pod: from objects of its namespace, never from its node."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, field_validator, model_validator

from galley.resources.meta import (
    MOUNT_PATTERN,
    RELATIVE_PATTERN,
    Choice,
    Name,
    ObjectName,
    Part,
    refusal,
    refuse_repeats,
)
from galley.resources.pod_resources import Quantity
from galley.resources.rule import Rule, checked, quoted, without_repeats

OWN_VOLUMES: Final = ("queue", "tmp", "code", "credentials", "encryption-keys")
"""Names of the volumes that Galley adds itself."""

_OWN_VOLUME_LIST: Final = f"[{', '.join(map(quoted, OWN_VOLUMES))}]"

_SOURCES: Final = ("configMap", "secret", "emptyDir", "persistentVolumeClaim", "ephemeral")
_SOURCES_IN_WORDS: Final = "configMap, secret, emptyDir, persistentVolumeClaim and ephemeral"
_COUNTED: Final = " + ".join(f"(has(self.{source}) ? 1 : 0)" for source in _SOURCES)

RESERVED_PATHS: Final = ("/proc", "/sys", "/dev", "/etc/galley", "/run/secrets", "/var/run/secrets")
"""Folders of a worker's container in which nothing may be mounted; `/dev/shm` excepted."""

_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - a folder of the worker's container
_RESERVED: Final = f"'^({'|'.join(RESERVED_PATHS)})(/.*)?$'"
_STEPS_BACK: Final = "'(^|/)[.][.]?(/|$)'"


def _without_steps_back(path: str) -> bool:
    return not {".", ".."} & set(path.split("/"))


RelativePath = Annotated[
    str,
    Field(
        pattern=RELATIVE_PATTERN,
        max_length=255,
        json_schema_extra=checked(
            Rule(f"!self.matches({_STEPS_BACK})", "contains . or ..; write the path without them")
        ),
    ),
]
"""A path inside a volume."""


class KeyToPath(Part):
    """An entry that becomes a file."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key of the entry."""

    path: RelativePath
    """Path of the file inside the volume."""

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        return _refuse_steps_back(path)


class ConfigMapVolume(Part):
    """Files from a ConfigMap."""

    name: ObjectName
    """Name of the ConfigMap, in the queue's namespace."""

    items: tuple[KeyToPath, ...] = Field((), max_length=32)
    """Entries that become files, at most 32; all of them when left out."""

    optional: Choice = False
    """Whether workers start if it does not exist; otherwise they wait."""


class SecretVolume(Part):
    """Files from a Secret."""

    secret_name: ObjectName
    """Name of the Secret, in the queue's namespace. It needs the label `galley.dev/workers: allowed`."""

    items: tuple[KeyToPath, ...] = Field((), max_length=32)
    """Entries that become files, at most 32; all of them when left out."""

    optional: Choice = False
    """Whether workers start if it does not exist; otherwise they wait. One that is made later is given to
    workers that start after the operator has seen it with its label."""


class Medium(StrEnum):
    """Where an emptyDir is kept."""

    DISK = ""
    MEMORY = "Memory"


class EmptyDirVolume(Part):
    """An empty folder that ends with the worker."""

    size_limit: Quantity
    """Size at which the worker is evicted. Required: without it, one worker could fill its node's disk."""

    medium: Medium = Medium.DISK
    """`Memory` keeps it in memory, where it counts towards the worker's memory limit."""


class ClaimVolume(Part):
    """A PersistentVolumeClaim that exists, shared by all workers of the queue."""

    claim_name: ObjectName
    """Name of the claim, in the queue's namespace. It needs the label `galley.dev/workers: allowed`, and an
    access mode that fits: with ReadWriteOnce all workers must run on one node."""

    read_only: Choice = False
    """Whether it is mounted read-only."""


class AccessMode(StrEnum):
    """How a volume may be mounted."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"
    READ_WRITE_MANY = "ReadWriteMany"
    READ_ONLY_MANY = "ReadOnlyMany"


class StorageRequests(Part):
    """What a volume requests."""

    storage: Quantity
    """Its size, such as `10Gi`."""


class StorageResources(Part):
    """How large a volume is."""

    requests: StorageRequests
    """What it requests."""


class ClaimSpec(Part):
    """The volume each worker gets."""

    access_modes: tuple[AccessMode, ...] = Field((AccessMode.READ_WRITE_ONCE,), min_length=1, max_length=4)
    """How it may be mounted."""

    storage_class_name: ObjectName | None = None
    """Its StorageClass; the cluster's default when left out."""

    resources: StorageResources
    """Its size."""


class ClaimTemplate(Part):
    """What the claim of each worker is made from."""

    spec: ClaimSpec
    """The volume each worker gets."""


class EphemeralVolume(Part):
    """A volume of its own for each worker, deleted with it."""

    volume_claim_template: ClaimTemplate
    """What the claim of each worker is made from."""


class Volume(Part):
    """A volume of a worker's pod: a name, and exactly one source."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                f"!(self.name in {_OWN_VOLUME_LIST})",
                "'{{self.name}}' is a volume of Galley itself; choose another name",
                ".name",
            ),
            Rule(
                f"{_COUNTED} == 1",
                f"must have exactly one source; the sources are {_SOURCES_IN_WORDS}",
            ),
        )
    )

    name: Name
    """Name that `volumeMounts` refer to."""

    config_map: ConfigMapVolume | None = None
    """Files from a ConfigMap."""

    secret: SecretVolume | None = None
    """Files from a Secret."""

    empty_dir: EmptyDirVolume | None = None
    """An empty folder with a size limit."""

    persistent_volume_claim: ClaimVolume | None = None
    """A claim that exists."""

    ephemeral: EphemeralVolume | None = None
    """A volume of its own for each worker."""

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in OWN_VOLUMES:
            raise refusal(f"{name!r} is a volume of Galley itself", "choose another name")
        return name

    @model_validator(mode="after")
    def _one_source(self) -> "Volume":
        sources = (
            self.config_map, self.secret, self.empty_dir, self.persistent_volume_claim, self.ephemeral,
        )  # fmt: skip
        if sum(source is not None for source in sources) != 1:
            raise refusal("must have exactly one source", f"the sources are {_SOURCES_IN_WORDS}")
        return self


MountPath = Annotated[
    str,
    Field(
        pattern=MOUNT_PATTERN,
        max_length=255,
        json_schema_extra=checked(
            Rule(f"!self.matches({_STEPS_BACK})", "contains . or ..; write the path without them"),
            Rule(
                f"self == {quoted(_SHARED_MEMORY)} || !self.matches({_RESERVED})",
                "'{{self}}' is used by Kubernetes or Galley; choose another folder",
            ),
        ),
    ),
]
"""A folder of the container."""


class VolumeMount(Part):
    """Where a volume appears in the worker's container."""

    name: Name
    """Name of one of the `volumes`."""

    mount_path: MountPath
    """Absolute path of the folder. A volume at `/tmp` replaces the temporary folder that workers have.
    Refused in folders of Kubernetes and Galley: `/proc`, `/sys`, `/dev` (except `/dev/shm`), `/etc/galley`,
    `/run/secrets` and `/var/run/secrets`."""

    sub_path: RelativePath | None = None
    """Folder or file of the volume to mount, instead of all of it."""

    read_only: Choice = False
    """Whether it is mounted read-only."""

    @field_validator("mount_path")
    @classmethod
    def _is_free(cls, path: str) -> str:
        _refuse_steps_back(path)
        reserved = any(path == each or path.startswith(f"{each}/") for each in RESERVED_PATHS)
        if reserved and path != _SHARED_MEMORY:
            raise refusal(f"{path!r} is used by Kubernetes or Galley", "choose another folder")
        return path

    @field_validator("sub_path")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        return _refuse_steps_back(path) if path is not None else None


VOLUMES_DIFFER: Final = checked(without_repeats("volume", "name"))
MOUNTS_DIFFER: Final = checked(without_repeats("folder", "mountPath"))


def refuse_repeated_mounts(mounts: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
    """Raise a refusal if two volumes are mounted at one path."""
    refuse_repeats([mount.mount_path for mount in mounts], "folder", "mountPath")
    return mounts


def _refuse_steps_back(path: str) -> str:
    if not _without_steps_back(path):
        raise refusal("contains . or ..", "write the path without them")
    return path
