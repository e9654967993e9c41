"""A control plane alone: the real API, in seconds, without pods."""

import json

import pytest

from testcluster.cluster import Part
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually
from tests.support.kubectl import KubectlFailed

pytestmark = pytest.mark.timeout(120)

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.probe.galley.dev"},
    "spec": {
        "group": "probe.galley.dev",
        "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"size": {"type": "integer"}, "color": {"type": "string"}},
                                "x-kubernetes-validations": [
                                    {"rule": "self.size <= 3", "message": "too large"}
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


async def test_it_holds_objects_to_the_rules_of_their_kind(api_server: ApiServer, api_namespace: str) -> None:
    kubectl = api_server.kubectl
    kubectl.apply(DEFINITION)
    kubectl("wait", "crd/things.probe.galley.dev", "--for=condition=Established", "--timeout=20s")
    await eventually(lambda: _apply(api_server, api_namespace, "small", 3) == "", within=20)
    assert "too large" in _apply(api_server, api_namespace, "large", 4)
    selected = kubectl(
        "get", "things", "-n", api_namespace, "--field-selector", "spec.color=red", "-o", "name"
    )
    assert selected == "thing.probe.galley.dev/small\n"


def test_it_takes_pods_though_nothing_runs_them(api_server: ApiServer, api_namespace: str) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "idle"},
        "spec": {"containers": [{"name": "c", "image": "localhost/none"}]},
    }
    api_server.kubectl.apply(pod, namespace=api_namespace)
    assert api_server.kubectl.get("pod", "idle", "-n", api_namespace)["status"]["phase"] == "Pending"


@pytest.mark.parametrize("part", [Part.ETCD, Part.API_SERVER])
async def test_it_keeps_what_it_had_over_a_crash(
    api_server: ApiServer, api_namespace: str, part: Part
) -> None:
    api_server.kubectl("create", "configmap", "kept", "-n", api_namespace)
    api_server.cluster.kill(part)
    api_server.cluster.start(part)
    await eventually(lambda: _has(api_server, api_namespace), within=60)
    await eventually(lambda: _ready(api_server), within=60)


def _apply(api_server: ApiServer, namespace: str, name: str, size: int) -> str:
    thing = {
        "apiVersion": "probe.galley.dev/v1",
        "kind": "Thing",
        "metadata": {"name": name},
        "spec": {"size": size, "color": "red"},
    }
    try:
        api_server.kubectl.apply(thing, namespace=namespace)
    except KubectlFailed as error:
        return str(error)
    return ""


def _has(api_server: ApiServer, namespace: str) -> bool:
    try:
        return bool(api_server.kubectl("get", "configmap", "kept", "-n", namespace, "-o", "name", within=10))
    except KubectlFailed:
        return False


def _ready(api_server: ApiServer) -> bool:
    try:
        return api_server.kubectl("get", "--raw", "/readyz", within=10) == "ok"
    except KubectlFailed:
        return False


def test_it_notes_who_asked_for_what_of_our_kinds(api_server: ApiServer, api_namespace: str) -> None:
    with pytest.raises(KubectlFailed, match="the server could not find"):
        api_server.kubectl("get", "--raw", f"/apis/galley.dev/v1alpha1/namespaces/{api_namespace}/nothings")
    notes = [json.loads(line) for line in (api_server.cluster.logs / "audit.log").read_text().splitlines()]
    assert [note["verb"] for note in notes if note["objectRef"].get("namespace") == api_namespace] == ["list"]
