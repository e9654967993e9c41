"""The environment of a worker's handlers."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field, field_validator, model_validator

from galley.resources.meta import Choice, EnvironmentName, ObjectName, Part, refusal
from galley.resources.rule import Rule, checked, quoted

OWN_ENVIRONMENT: Final = "GALLEY_"
OPEN_ENVIRONMENT: Final = ("GALLEY_CACHE", "GALLEY_CACHE_BYTES", "GALLEY_OBJECTS", "GALLEY_OBJECT_SECONDS")
"""Settings of the worker that a queue may make."""
"""Prefix of the variables that Galley sets for its workers."""


class SecretKeyRef(Part):
    """One entry of a Secret."""

    name: ObjectName
    """Name of the Secret, in the queue's namespace."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key of the entry."""

    optional: Choice = False
    """Whether workers start without the variable if the entry does not exist; otherwise they wait."""


class ConfigMapKeyRef(Part):
    """One entry of a ConfigMap."""

    name: ObjectName
    """Name of the ConfigMap, in the queue's namespace."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key of the entry."""

    optional: Choice = False
    """Whether workers start without the variable if the entry does not exist; otherwise they wait."""


class ValueFrom(Part):
    """Source of a variable's value: one of the two fields."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                "must have exactly one of secretKeyRef and configMapKeyRef; add or remove one",
            )
        )
    )

    secret_key_ref: SecretKeyRef | None = None
    """Entry of a Secret. The Secret needs the label `galley.dev/workers: allowed`. Read when a worker
    starts, so a change reaches workers that start afterwards."""

    config_map_key_ref: ConfigMapKeyRef | None = None
    """Entry of a ConfigMap. Read when a worker starts."""

    @model_validator(mode="after")
    def _one_source(self) -> "ValueFrom":
        if (self.secret_key_ref is None) == (self.config_map_key_ref is None):
            raise refusal("must have exactly one of secretKeyRef and configMapKeyRef", "add or remove one")
        return self


class EnvironmentVariable(Part):
    """A variable in the environment of each worker, for its handlers."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                f"!self.name.startsWith({quoted(OWN_ENVIRONMENT)}) || "
                f"self.name in [{', '.join(map(quoted, OPEN_ENVIRONMENT))}]",
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
    """Name of the variable. Names that begin with GALLEY_ are Galley's own, but for GALLEY_CACHE,
    GALLEY_CACHE_BYTES, GALLEY_OBJECTS and GALLEY_OBJECT_SECONDS, which say where large data are."""

    value: Annotated[str, Field(max_length=32_768)] | None = None
    """Its value, at most 32768 characters; `$(NAME)` refers to a variable further up in the list."""

    value_from: ValueFrom | None = None
    """Source of its value, instead of `value`: do not write secrets into a TaskQueue."""

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name.startswith(OWN_ENVIRONMENT) and name not in OPEN_ENVIRONMENT:
            raise refusal(f"{name!r} is set by Galley itself", f"choose a name without {OWN_ENVIRONMENT}")
        return name

    @model_validator(mode="after")
    def _one_value(self) -> "EnvironmentVariable":
        if self.value is None and self.value_from is None:
            raise refusal("has neither value nor valueFrom", 'add one of the two; value: "" is empty')
        if self.value is not None and self.value_from is not None:
            raise refusal("has both value and valueFrom", "remove one of the two")
        return self


class ConfigMapEnvSource(Part):
    """A ConfigMap whose entries become variables."""

    name: ObjectName
    """Name of the ConfigMap, in the queue's namespace."""

    optional: Choice = False
    """Whether workers start if it does not exist; otherwise they wait."""


class SecretEnvSource(Part):
    """A Secret whose entries become variables."""

    name: ObjectName
    """Name of the Secret, in the queue's namespace. It needs the label `galley.dev/workers: allowed`."""

    optional: Choice = False
    """Whether workers start if it does not exist; otherwise they wait. One that is made later is given to
    workers that start after the operator has seen it with its label."""


class EnvironmentSource(Part):
    """An object whose entries become variables of each worker."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "has(self.configMapRef) != has(self.secretRef)",
                "must have exactly one of configMapRef and secretRef; add or remove one",
            ),
            Rule(
                f"!has(self.prefix) || !self.prefix.startsWith({quoted(OWN_ENVIRONMENT)})",
                f"variables with {OWN_ENVIRONMENT} are set by Galley itself; choose another prefix",
                ".prefix",
            ),
        )
    )

    prefix: EnvironmentName | None = None
    """Put in front of each entry's key."""

    config_map_ref: ConfigMapEnvSource | None = None
    """The ConfigMap."""

    secret_ref: SecretEnvSource | None = None
    """The Secret."""

    @field_validator("prefix")
    @classmethod
    def _prefix_is_free(cls, prefix: str | None) -> str | None:
        if prefix is not None and prefix.startswith(OWN_ENVIRONMENT):
            raise refusal(
                f"variables with {OWN_ENVIRONMENT} are set by Galley itself", "choose another prefix"
            )
        return prefix

    @model_validator(mode="after")
    def _one_source(self) -> "EnvironmentSource":
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise refusal("must have exactly one of configMapRef and secretRef", "add or remove one")
        return self
