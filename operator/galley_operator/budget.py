"""How many workers the queues of a cluster or a namespace may have together, as an administrator says."""

from decimal import Decimal
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from galley.resources.pod_resources import amount

_STRICT: Final = ConfigDict(frozen=True, extra="forbid")


def _number(value: object) -> object:
    try:
        return amount(value) if isinstance(value, str) else value
    except (ArithmeticError, KeyError) as error:
        raise ValueError(f"{value!r} is no quantity, such as 500m or 8Gi") from error


Quantity = Annotated[Decimal, BeforeValidator(_number), Field(ge=0)]


class WorkerBudget(BaseModel):
    """What workers may request together; None is no limit."""

    model_config = _STRICT

    workers: Annotated[int, Field(ge=0)] | None = None
    cpu: Quantity | None = None
    memory: Quantity | None = None


class Budget(WorkerBudget):
    """What all workers may request, and those of some namespaces."""

    namespaces: dict[str, WorkerBudget] = Field(default_factory=dict)

    @property
    def limited(self) -> bool:
        """Whether anything is."""
        own = (self.workers, self.cpu, self.memory)
        return bool(self.namespaces) or any(limit is not None for limit in own)
