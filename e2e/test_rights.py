"""What the operator and people may do on a cluster by the chart's roles, tried against a real API server."""

import json
from typing import Any

import pytest
import yaml

from docs.generate.chart import CHART
from e2e import waits
from e2e.rendered_chart import Object, helm, of_kind, rendered
from tests.support.api_server import ApiServer
from tests.support.kubectl import KubectlFailed

OPERATOR = "system:serviceaccount:galley-system:galley-operator"
TOKEN_OF_ANOTHER = {"kubernetes.io/service-account.name": "default"}
COMMANDS = [{"name": "echo", "command": ["echo"]}]
OWNER = {"apiVersion": "galley.dev/v1alpha1", "kind": "TaskQueue", "name": "jobs", "uid": "0"}


def metadata(name: str, *, owned: bool) -> Object:
    labels = {"app.kubernetes.io/managed-by": "galley", "galley.dev/queue": "jobs"}
    return {"name": name, "labels": labels, "ownerReferences": [OWNER]} if owned else {"name": name}


def secret(name: str = "galley-jobs-worker", *, owned: bool = True, kind: str = "Opaque") -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata(name, owned=owned), "type": kind}


def deployment(*, owned: bool = True, safe: bool = True, **pod: Any) -> Object:
    container: Object = {"name": "worker", "image": "worker:1"}
    if safe:
        container["securityContext"] = {"allowPrivilegeEscalation": False}
    selected = {"app": "jobs"}
    spec = {
        "selector": {"matchLabels": selected},
        "template": {"metadata": {"labels": selected}, "spec": {"containers": [container], **pod}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata("galley-jobs", owned=owned),
        "spec": spec,
    }


ESCALATIONS: dict[str, Object] = {
    "a Secret of no queue": secret(owned=False),
    "a Secret of another name": secret("tls"),
    "a token of any ServiceAccount": secret(kind="kubernetes.io/service-account-token")
    | {"metadata": metadata("galley-x", owned=True) | {"annotations": TOKEN_OF_ANOTHER}},
    "a Deployment of no queue": deployment(owned=False),
    "the node's files": deployment(volumes=[{"name": "root", "hostPath": {"path": "/"}}]),
    "the node's network": deployment(hostNetwork=True),
    "a privileged pod": deployment(safe=False),
}  # fmt: skip


class Stage:
    """A namespace in which the operator has its Role."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self.kubectl, self.namespace = api.kubectl, namespace

    def tries(self, thing: Object, verb: str = "create") -> str:
        """Do something as the operator, without effect; returns why it was refused."""
        try:
            self.kubectl(
                *(verb, "--dry-run=server", f"--as={OPERATOR}", "-n", self.namespace, "-f", "-"),
                *(("--server-side", "--force-conflicts") if verb == "apply" else ()),
                given=json.dumps(thing),
            )
        except KubectlFailed as failed:
            return str(failed)
        return ""


@pytest.fixture
def stage(galley_kinds: ApiServer, api_namespace: str) -> Stage:
    things = rendered(f"operator.namespaces={{{api_namespace}}}")
    stage = Stage(galley_kinds, api_namespace)
    roles = [
        thing
        for thing in things
        if thing["kind"] in {"Role", "RoleBinding"} and thing["metadata"]["namespace"] == api_namespace
        if thing["metadata"]["name"] == "galley-operator"
    ]
    stage.kubectl.apply(*roles, namespace=api_namespace)
    return stage


def policy(namespace: str) -> list[Object]:
    things = rendered(f"operator.namespaces={{{namespace}}}", "operator.warnElsewhere=false")
    return [thing for thing in things if thing["kind"].startswith("ValidatingAdmission")]


def test_what_the_operator_never_writes_is_refused_though_its_rights_allow_it(stage: Stage) -> None:
    kubectl = stage.kubectl
    theirs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "galley-theirs"}, "type": "Opaque"}
    kubectl.apply(theirs, namespace=stage.namespace)
    taken = secret("galley-theirs")
    for name, attack in ESCALATIONS.items():
        assert stage.tries(attack) == "", f"the control experiment failed: {name}"
    assert stage.tries(taken, "apply") == ""

    kubectl.apply(*policy(stage.namespace))
    try:
        refused = "ValidatingAdmissionPolicy"
        waits.until("the policy", lambda: refused in stage.tries(secret(owned=False)), within=30)
        for name, attack in ESCALATIONS.items():
            assert refused in stage.tries(attack), name
        assert refused in stage.tries(taken, "apply")
        for thing in (secret(), deployment()):
            assert stage.tries(thing) == ""
    finally:
        for thing in policy(stage.namespace):
            kubectl("delete", thing["kind"], thing["metadata"]["name"])


@pytest.mark.parametrize(
    ("role", "kind", "spec"),
    [
        ("galley-queue-editor", "TaskQueue", {"handlers": {"commands": COMMANDS}}),
        ("galley-task-editor", "Task", {"queueName": "jobs", "handler": "echo"}),
    ],
)  # fmt: skip
def test_who_may_edit_can_apply(
    galley_kinds: ApiServer, api_namespace: str, role: str, kind: str, spec: Object
) -> None:
    kubectl = galley_kinds.kubectl
    kubectl.apply(of_kind(rendered(), "ClusterRole")[role])
    kubectl("create", "rolebinding", "edits", f"--clusterrole={role}", "--user=eve", "-n", api_namespace)
    thing: Object = {"apiVersion": "galley.dev/v1alpha1", "kind": kind, "metadata": {"name": "jobs"}}
    for _ in range(2):  # the second time it is read and patched
        kubectl("apply", "--as=eve", "-n", api_namespace, "-f", "-", given=json.dumps(thing | {"spec": spec}))
    kubectl("delete", kind, "jobs", "--as=eve", "-n", api_namespace)


def test_the_default_is_one_namespace_and_all_is_said() -> None:
    by_default, everywhere = rendered(), rendered("operator.namespaces=all")
    assert of_kind(by_default, "ClusterRoleBinding") == {}
    bound = {
        thing["metadata"]["namespace"]
        for thing in by_default
        if thing["kind"] == "RoleBinding" and "helm.sh/hook" not in thing["metadata"].get("annotations", {})
    }
    assert bound == {"galley-system", "default"}
    assert "galley-system-galley-operator" in of_kind(everywhere, "ClusterRoleBinding")


def test_no_namespace_at_all_is_refused_with_advice() -> None:
    done = helm("template", "galley", str(CHART), "--set-json", "operator.namespaces=[]")
    assert done.returncode != 0
    assert "operator.namespaces is empty: list the namespaces to serve, or set it to all" in done.stderr


def test_the_notes_say_which_namespace_is_served_and_how_to_serve_another() -> None:
    done = helm("install", "mine", str(CHART), "--namespace", "here", "--dry-run=client")
    notes = done.stdout.partition("NOTES:")[2]
    assert "serves queues in default." in notes
    assert "--set 'operator.namespaces={default,OTHER}'" in notes
    everywhere = helm(
        *("install", "mine", str(CHART), "--namespace", "here", "--dry-run=client"),
        *("--set", "operator.namespaces=all"),
    )
    assert "operator.namespaces is all" in everywhere.stdout.partition("NOTES:")[2]


def changed_by_policy() -> list[Object]:
    served = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
    done = helm("template", "galley", str(CHART), "--api-versions", served, "--namespace", "galley-system")
    things = [thing for thing in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if thing]
    return [thing for thing in things if thing["kind"].startswith("MutatingAdmission")]


def test_who_changed_an_object_is_written_by_the_api_server(
    galley_kinds: ApiServer, api_namespace: str
) -> None:
    kubectl, policy = galley_kinds.kubectl, changed_by_policy()
    assert len(policy) == 2
    kubectl.apply(of_kind(rendered(), "ClusterRole")["galley-queue-editor"])
    for user in ("eve", "bob"):
        role = "--clusterrole=galley-queue-editor"
        kubectl("create", "rolebinding", user, role, f"--user={user}", "-n", api_namespace)
    queue: Object = {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": "jobs", "annotations": {"galley.dev/changed-by": "the boss"}},
        "spec": {"handlers": {"commands": COMMANDS}},
    }

    def apply(user: str, thing: Object) -> str:
        kubectl("apply", f"--as={user}", "-n", api_namespace, "-f", "-", given=json.dumps(thing))
        found = kubectl.get("taskqueue", "jobs", "-n", api_namespace)
        return str(found["metadata"].get("annotations", {}).get("galley.dev/changed-by"))

    def enforced() -> bool:
        if apply("eve", queue) == "eve":
            return True
        kubectl("delete", "taskqueue", "jobs", "-n", api_namespace)
        return False

    kubectl.apply(*policy)
    try:
        waits.until("the policy", enforced, within=30)
        plain = {**queue, "metadata": {"name": "jobs", "labels": {"a": "b"}}}
        assert apply("bob", plain) == "eve"  # the spec is as it was
        assert apply("bob", {**plain, "spec": {**queue["spec"], "timeoutSeconds": 7}}) == "bob"
        forged = {**plain, "metadata": queue["metadata"]}
        assert apply("eve", {**forged, "spec": {**queue["spec"], "timeoutSeconds": 7}}) == "bob"
    finally:
        for thing in policy:
            kubectl("delete", thing["kind"], thing["metadata"]["name"])
