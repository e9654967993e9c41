"""What is known of Galley in a cluster."""

from datetime import datetime

from msgspec import Struct

from galley_operator.cluster.errors import ClusterError


class DefinitionFacts(Struct, frozen=True):
    """One of our CustomResourceDefinitions."""

    name: str
    fields: frozenset[str] | None
    """The paths of the fields it has in `spec` and `status`; None if there is no such definition."""
    known: frozenset[str]
    """Those that this version has."""


class OperatorFacts(Struct, frozen=True):
    """One Deployment of the operator."""

    name: str
    """Its namespace and name."""
    replicas: int
    ready: int
    version: str
    """Version of the chart's application, as its label says."""
    namespaces: tuple[str, ...]
    """Namespaces it serves; empty means all but its own."""
    own_namespace: str
    lease: str
    """Namespace and name of its Lease."""
    holder: str | None = None
    """Who holds that; empty if it was released, None if there is no Lease."""
    renewed_at: datetime | None = None
    lease_seconds: float = 0.0

    def serves(self, namespace: str) -> bool:
        """Return whether queues of a namespace are served."""
        return namespace in self.namespaces if self.namespaces else namespace != self.own_namespace


class ClaimFacts(Struct, frozen=True):
    """The Lease by which an operator claims a namespace."""

    namespace: str
    holder: str
    """Namespace and name of its operator's own Lease, if an operator wrote it; empty if it is free."""


class QueueObjectFacts(Struct, frozen=True):
    """One TaskQueue."""

    namespace: str
    name: str
    ready: str
    """Status of its condition `Ready`; empty if it has none."""
    reason: str = ""
    message: str = ""
    looked_at: bool = True
    """Whether its status is of its present generation."""


class ClusterFacts(Struct, frozen=True):
    """What could be read. What the rights do not show is left out, and stands in `unread`."""

    now: datetime
    version: str
    """Of this command."""
    definitions: tuple[DefinitionFacts, ...] = ()
    operators: tuple[OperatorFacts, ...] | None = None
    queues: tuple[QueueObjectFacts, ...] = ()
    unread: tuple[ClusterError, ...] = ()
    claim: ClaimFacts | None = None
    """Of the namespace that is looked at; None if there is none."""
