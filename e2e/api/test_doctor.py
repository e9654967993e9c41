"""`galley doctor` on a real API server: the definitions of this version, and no operator."""

from docs.generate.crds import KINDS
from galley.doctor import Level
from galley_operator.checkup.gather import examine
from tests.support.api_server import ApiServer


async def test_the_doctor_reads_definitions_and_queues_as_the_api_server_has_them(
    galley_api: ApiServer, api_namespace: str
) -> None:
    kind = {"apiVersion": "galley.dev/v1alpha1", "kind": "TaskQueue"}
    queue = {**kind, "metadata": {"name": "images"}, "spec": {}}
    galley_api.kubectl.apply(queue, namespace=api_namespace)
    found = {each.check: each for each in await examine(galley_api.kubeconfig, api_namespace)}
    definitions = [each for check, each in found.items() if check.startswith("definition ")]
    assert [each.level for each in definitions] == [Level.OK] * len(KINDS)
    assert found["operator"].level is Level.FAIL
    assert "has no status" in found[f"taskqueue {api_namespace}/images"].message
