"""What queues and namespaces may set aside on NATS, as an administrator says it."""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from galley.resources.pod_resources import amount

_CAMEL: Final = ConfigDict(frozen=True, alias_generator=to_camel, extra="forbid")


def _bytes(value: object) -> object:
    try:
        return int(amount(value)) if isinstance(value, str) else value
    except (ArithmeticError, KeyError) as error:
        raise ValueError(f"{value!r} is no amount of bytes, such as 8Gi") from error


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]


class NamespaceQuota(BaseModel):
    """What applies to one namespace; what is left out is as for the others."""

    model_config = _CAMEL

    queue_bytes: Bytes | None = None
    namespace_bytes: Bytes | None = None
    namespace_queues: Annotated[int, Field(ge=0)] | None = None


class Quotas(NamespaceQuota):
    """What applies to all namespaces, and what to some; None is no limit."""

    namespaces: dict[str, NamespaceQuota] = Field(default_factory=dict)

    def of(self, namespace: str) -> NamespaceQuota:
        """Return what applies to a namespace."""
        own = self.namespaces.get(namespace, NamespaceQuota())
        return NamespaceQuota.model_validate(
            {
                name: value if (value := getattr(own, name)) is not None else getattr(self, name)
                for name in NamespaceQuota.model_fields
            },
            by_name=True,
        )
