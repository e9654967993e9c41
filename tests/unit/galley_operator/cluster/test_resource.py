import pytest

from galley_operator.cluster.resource import LEASES, NAMESPACES, PODS, TASKS, Resource


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "subresource", "path"),
    [
        (PODS, "a", "p", "", "/api/v1/namespaces/a/pods/p"),
        (PODS, None, "", "", "/api/v1/pods"),
        (TASKS, "a", "t", "status", "/apis/galley.dev/v1alpha1/namespaces/a/tasks/t/status"),
        (TASKS, None, "", "", "/apis/galley.dev/v1alpha1/tasks"),
        (LEASES, "a", "", "", "/apis/coordination.k8s.io/v1/namespaces/a/leases"),
        (NAMESPACES, None, "a", "", "/api/v1/namespaces/a"),
    ],
)
def test_objects_are_where_the_api_serves_them(
    resource: Resource, namespace: str | None, name: str, subresource: str, path: str
) -> None:
    assert resource.path(namespace, name, subresource) == path


def test_objects_are_called_as_people_call_them() -> None:
    assert TASKS.named("images", "one", "status") == "tasks/status images/one"
    assert TASKS.named(None, "") == "tasks"
    assert NAMESPACES.named(None, "images") == "namespaces images"
