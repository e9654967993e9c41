"""A namespace on the API server, with an operator that serves the queues in it."""

import json
from typing import Any

from galley.broker.connection import Broker
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually

CHILD = "galley-drills"


class Stage:
    """One namespace on the API server, with the operator that serves it."""

    def __init__(self, api: ApiServer, broker: Broker, namespace: str) -> None:
        self.api, self.broker, self.namespace = api, broker, namespace

    def apply(self, name: str = "drills", **spec: Any) -> None:
        spec = {**spec, "worker": {"modules": ["drills"], **spec.get("worker", {})}}
        queue = {"kind": "TaskQueue", "metadata": {"name": name}, "spec": spec}
        self.api.kubectl.apply({"apiVersion": "galley.dev/v1alpha1", **queue}, namespace=self.namespace)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return self.api.kubectl.get(kind, name, "-n", self.namespace)

    def there(self, kind: str, name: str = CHILD) -> bool:
        return bool(self.api.kubectl("get", kind, name, "-n", self.namespace, "--ignore-not-found"))

    def change(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        self.api.kubectl("patch", kind, name, "-n", self.namespace, "--type=merge", "-p", json.dumps(patch))

    def delete(self, kind: str, name: str) -> None:
        self.api.kubectl("delete", kind, name, "-n", self.namespace, "--wait=false")

    def status(self, name: str = "drills") -> dict[str, Any]:
        return dict(self.get("taskqueue", name).get("status", {}))

    async def condition(self, kind: str, *, name: str = "drills", **wanted: Any) -> dict[str, Any]:
        """Return a condition once these of its fields are so."""

        def has() -> dict[str, Any] | None:
            conditions = {each["type"]: each for each in self.status(name).get("conditions", [])}
            found: dict[str, Any] = conditions.get(kind, {})
            assert {key: found.get(key) for key in wanted} == wanted, conditions
            return found

        found = await eventually(has, within=30, why=f"condition {kind}")
        assert found is not None
        return found


def settings_for(namespace: str, **more: Any) -> dict[str, Any]:
    return {
        "namespaces": namespace,
        "install": namespace,
        "lease_namespace": namespace,
        "sweep_seconds": 2,
        **more,
    }


def events(stage: Stage, kind: str) -> list[tuple[str, str]]:
    """Return reason and text of the events of a type."""
    found = stage.get("events", f"--field-selector=type={kind}")["items"]
    return [(each["reason"], each["message"]) for each in found]


def condition_of(stage: Stage, kind: str) -> dict[str, Any]:
    [found] = [each for each in stage.status()["conditions"] if each["type"] == kind]
    return dict(found)
