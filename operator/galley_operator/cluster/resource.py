"""Kinds of objects, and where the API serves them."""

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What objects of the kind have as `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Return the path of the collection, of one object, or of a part of it.

        Args:
            namespace: None means all, or that the kind has none.
            name: empty for the collection.
            subresource: such as `status`.
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def named(self, namespace: str | None, name: str, subresource: str = "") -> str:
        """Return what people call an object, or a part of it: `tasks/status images/thumb-1`."""
        kind = f"{self.plural}/{subresource}" if subresource else self.plural
        return " ".join([kind, "/".join(part for part in (namespace, name) if part)]).strip()


def key_of(thing: dict[str, Any]) -> tuple[str, str]:
    """Return namespace and name of an object."""
    metadata = thing["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
PODS: Final = Resource("", "v1", "pods", "Pod")
CONFIGMAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
SERVICEACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
PDBS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
CRDS: Final = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
TASKQUEUES: Final = Resource("galley.dev", "v1alpha1", "taskqueues", "TaskQueue")
TASKS: Final = Resource("galley.dev", "v1alpha1", "tasks", "Task")
TASKSCHEDULES: Final = Resource("galley.dev", "v1alpha1", "taskschedules", "TaskSchedule")
TOPICS: Final = Resource("galley.dev", "v1alpha1", "topics", "Topic")
WORKFLOWS: Final = Resource("galley.dev", "v1alpha1", "workflows", "Workflow")
