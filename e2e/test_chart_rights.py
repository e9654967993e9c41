"""The chart: whose rights it makes, and which Secrets they reach."""

import json
from collections.abc import Sequence

import pytest

from e2e import waits
from e2e.chart_values import SETS
from e2e.rendered_chart import Object, nats_config, of_kind, rendered
from tests.support.api_server import ApiServer
from tests.support.kubectl import KubectlFailed

pytestmark = pytest.mark.timeout(300)


def test_the_api_server_warns_about_namespaces_that_are_not_served() -> None:
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    name = "galley-system-galley-elsewhere"
    for kind in kinds:
        assert name not in of_kind(rendered("operator.namespaces=all"), kind)
        assert name not in of_kind(rendered("operator.warnElsewhere=false"), kind)
        assert name in of_kind(rendered("operator.namespaces={a,b}"), kind)


def test_a_queue_in_a_namespace_that_is_not_served_gets_a_warning(
    galley_kinds: ApiServer, api_namespace: str
) -> None:
    served = f"operator.namespaces={{{api_namespace}}}"
    things = rendered(served, "operator.limitWrites=false", namespace=api_namespace)
    policies = [thing for thing in things if thing["kind"].startswith("ValidatingAdmission")]
    kubectl = galley_kinds.kubectl
    queue = {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": "jobs"},
        "spec": {"worker": {"modules": ["jobs"]}},
    }

    def warned(namespace: str) -> str:
        try:
            kubectl(
                *("apply", "--warnings-as-errors", "--dry-run=server", "-n", namespace, "-f", "-"),
                given=json.dumps(queue),
            )
        except KubectlFailed as failed:
            return str(failed)
        return ""

    kubectl.apply(*policies)
    try:
        # It takes a moment until an API server enforces a new policy.
        waits.until("a warning", lambda: "does not serve this namespace" in warned("default"), within=30)
        assert warned(api_namespace) == ""
    finally:
        for thing in policies:
            kubectl("delete", thing["kind"], thing["metadata"]["name"])


def test_rights_are_for_its_namespaces_alone_when_there_are_some() -> None:
    everywhere, somewhere = rendered("operator.namespaces=all"), rendered("operator.namespaces={one,two}")
    name = "galley-system-galley-operator"
    rules = of_kind(everywhere, "ClusterRole")[name]["rules"]
    assert name in of_kind(everywhere, "ClusterRoleBinding")
    assert of_kind(somewhere, "ClusterRoleBinding") == {}
    assert {thing["metadata"]["namespace"] for thing in somewhere if thing["kind"] == "RoleBinding"} == {
        "galley-system", "one", "two",
    }  # fmt: skip
    own = [
        thing for thing in somewhere if thing["kind"] == "Role" and thing["metadata"]["namespace"] == "one"
    ]
    (given,) = [role["rules"] for role in own if role["metadata"]["name"] == "galley-operator"]
    assert given[: len(rules)] == rules
    # Only listed namespaces are claimed.
    assert [rule["resources"] for rule in given[len(rules) :]] == [["leases"], ["leases"]]


def test_the_operator_gets_no_right_it_could_widen_its_own_with() -> None:
    things = rendered("operator.namespaces=all")
    for role in [*of_kind(things, "ClusterRole").values(), *of_kind(things, "Role").values()]:
        for rule in role["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert {"impersonate", "escalate", "bind"}.isdisjoint(rule["verbs"])
            assert {"pods/exec", "nodes", "roles", "rolebindings", "clusterroles"}.isdisjoint(
                rule["resources"]
            )


def secrets_rules(things: Sequence[Object], role: str, kind: str = "Role") -> list[Object]:
    return [rule for rule in of_kind(things, kind)[role]["rules"] if "secrets" in rule["resources"]]


def test_nats_is_shown_no_private_key_and_the_operator_lists_no_secret() -> None:
    things = rendered("nats.auth.enabled=true", "operator.namespaces=all")
    pod = of_kind(things, "StatefulSet")["galley-nats"]["spec"]["template"]["spec"]
    shown = {
        volume["secret"]["secretName"]: {item["key"] for item in volume["secret"]["items"]}
        for volume in pod["volumes"]
        if "secret" in volume
    }
    assert shown == {
        "galley-nats-auth": {"auth.conf"},
        "galley-nats-server": {"ca.crt", "tls.crt", "tls.key", "tag.conf"},
    }
    configuration = nats_config("nats.auth.enabled=true")
    # The directory of accounts is named last: it replaces the resolver that auth.conf names.
    assert configuration.index("include ../nats-auth/auth.conf") < configuration.index("resolver: {")
    rules = secrets_rules(things, "galley-system-galley-operator", "ClusterRole")
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "create", "patch"}
    assert secrets_rules(things, "galley-operator-leader") == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["galley-nats-auth"],
            "verbs": ["get"],
        },
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["galley-nats-server", "galley-nats-store"],
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    ]


def test_keys_that_are_there_already_are_only_read() -> None:
    things = rendered(*SETS["credentials of a NATS that is there"])
    assert [rule["verbs"] for rule in secrets_rules(things, "galley-operator-leader")] == [["get"]]
    [container] = of_kind(things, "Deployment")["galley-operator"]["spec"]["template"]["spec"]["containers"]
    told = {each["name"]: each.get("value") for each in container["env"]}
    assert told["GALLEY_OPERATOR_AUTH_SECRET"] == "keys"
    assert told["GALLEY_OPERATOR_MAKE_KEYS"] == "false"


def test_without_credentials_the_operator_writes_no_secret() -> None:
    things = rendered("nats.auth.enabled=false", "operator.namespaces=all")
    # It reads whether those that queues name are labelled for worker use.
    rules = secrets_rules(things, "galley-system-galley-operator", "ClusterRole")
    assert [rule["verbs"] for rule in rules] == [["get"]]
    # But for those of the servers: their certificate, and the key of their streams.
    names = {
        name
        for rule in secrets_rules(things, "galley-operator-leader")
        for name in rule.get("resourceNames", ())
    }
    assert names == {"galley-nats-server", "galley-nats-store"}


def test_making_queues_is_not_given_to_editors_silently() -> None:
    label = "rbac.authorization.k8s.io/aggregate-to-edit"
    for settings, aggregated in (((), False), (("rbac.aggregateQueuesToEdit=true",), True)):
        roles = of_kind(rendered(*settings), "ClusterRole")
        assert (label in roles["galley-queue-editor"]["metadata"]["labels"]) is aggregated
        assert label in roles["galley-task-editor"]["metadata"]["labels"]
        assert {"taskqueues"}.isdisjoint(roles["galley-task-editor"]["rules"][0]["resources"])
