"""The chart: what it refuses, what it makes of a set of values, and that an API server takes all of it."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from docs.generate.chart import CHART, values
from e2e import waits
from e2e.rendered_chart import Object, helm, nats_config, of_kind, pods, rendered, set_to
from tests.support.api_server import ApiServer
from tests.support.kubectl import KubectlFailed

pytestmark = pytest.mark.timeout(300)


SETS: dict[str, Sequence[str]] = {
    "defaults": (),
    "several of all": ("operator.replicas=2", "nats.replicas=3", "nats.storage.storageClassName=fast"),
    "namespaced": ("operator.namespaces={one,two}",),
    "a NATS that is there": (
        "nats.enabled=false",
        "nats.url=nats://elsewhere:4222",
        "nats.urlReplicas=3",
        "nats.auth.enabled=false",
    ),
    "a NATS without credentials": ("nats.auth.enabled=false", "operator.namespaces={one}"),
    "credentials of a NATS that is there": (
        "nats.enabled=false",
        "nats.url=nats://elsewhere:4222",
        "nats.auth.enabled=true",
        "nats.auth.existingSecret=keys",
    ),
    "certificates of cert-manager and encrypted streams": (
        "nats.replicas=3",
        "nats.tls.issuerRef.name=ours",
        "nats.tls.hosts={nats.example.com,10.0.0.7}",
        "nats.encryption.enabled=true",
        "nats.encryption.key=2",
        "nats.sidecars[0].name=exporter",
        "nats.sidecars[0].image=exporter:1",
        "nats.sidecars[0].resources.requests.cpu=1m",
        "nats.sidecars[0].resources.limits.memory=32Mi",
        "nats.sidecars[0].securityContext.allowPrivilegeEscalation=false",
        "nats.sidecars[0].securityContext.readOnlyRootFilesystem=true",
        "nats.sidecars[0].securityContext.capabilities.drop={ALL}",
    ),
    "a NATS that is there, with TLS and client certificates": (
        "nats.enabled=false",
        "nats.url=tls://elsewhere:4222",
        "nats.auth.existingSecret=keys",
        "nats.tls.existingSecret=tls",
        "nats.tls.clientCertificate=true",
        "nats.tls.serverName=nats.example.com",
    ),
    "without TLS": ("nats.tls.enabled=false",),
    "for a try": (
        "nats.storage.emptyDir=true",
        "networkPolicy.enabled=false",
        "operator.taskTtlSeconds=null",
        "crds.keep=false",
    ),
    "a gateway behind an Ingress": (
        "operator.namespaces={one}",
        "gateway.enabled=true",
        "gateway.replicas=3",
        "gateway.hosts={galley.example.com}",
        "gateway.ingress.enabled=true",
        "gateway.ingress.tlsSecret=certificate",
        "networkPolicy.gateway[0].namespaceSelector.matchLabels.name=ingress",
    ),
    "a gateway that an autoscaler scales, without credentials for NATS": (
        "gateway.enabled=true",
        "gateway.replicas=null",
        "nats.auth.enabled=false",
        "nats.tls.enabled=false",
    ),
    "backups to a volume": (
        "operator.namespaces={one}",
        "backup.enabled=true",
        "backup.keySecret=key",
        "backup.destination.claimName=archives",
        "backup.keepDays=7",
    ),
    "a restore from S3": (
        "operator.replicas=0",
        "nats.replicas=3",
        "backup.keySecret=key",
        "backup.destination.url=s3://bucket/prefix",
        "backup.destination.existingSecret=s3",
        "backup.restore.archive=latest",
        "backup.restore.map.old=new",
        "backup.restore.namespaces={old}",
        "backup.restore.keepExisting=true",
    ),
    "everything said": (
        "commonLabels.team=data",
        "imagePullSecrets[0].name=registry",
        "operator.extraEnv[0].name=TZ",
        "operator.extraEnv[0].value=UTC",
        "operator.nodeSelector.disk=ssd",
        "operator.tolerations[0].operator=Exists",
        "operator.priorityClassName=high",
        f"operator.image.digest=sha256:{'0' * 64}",
        "nats.podAnnotations.a=b",
        "networkPolicy.clients[0].namespaceSelector.matchLabels.team=data",
        "networkPolicy.metrics[0].namespaceSelector.matchLabels.team=watch",
        "rbac.aggregateQueuesToEdit=true",
        "metrics.serviceMonitor=true",
        "metrics.podMonitor=true",
        "metrics.rules.enabled=true",
        "metrics.rules.runbookUrl=https://docs.example.com/runbooks/",
        "metrics.dashboards.enabled=true",
        "metrics.natsExporter.enabled=true",
    ),
    "renamed, without roles and CRDs": (
        "fullnameOverride=tasks",
        "rbac.create=false",
        "crds.enabled=false",
        "nats.syncInterval=always",
    ),
}


@pytest.mark.parametrize("settings", SETS.values(), ids=SETS.keys())
def test_helm_has_nothing_to_say_against_it(settings: Sequence[str]) -> None:
    done = helm("lint", "--strict", str(CHART), *set_to(settings))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("nats.replicas=2", r"/nats/replicas.*must be one of 1, 3"),
        ("operator.replica=2", r"/operator.*additional properties 'replica' not allowed"),
        ("oprator.replicas=2", r"additional properties 'oprator' not allowed"),
        ("nats.storage.size=10GB", r"/nats/storage/size.*does not match pattern"),
        ("nats.syncInterval=sometimes", r"/nats/syncInterval.*does not match pattern"),
        (
            "operator.logLevel=debug",
            r"/operator/logLevel.*must be one of 'DEBUG', 'INFO'",
        ),
        ("operator.namespaces={Team_A}", r"/operator/namespaces/0.*does not match pattern"),
        ("crds.keep=yes", r"/crds/keep.*got string, want boolean"),
        ("operator.image.digest=abc", r"/operator/image/digest.*does not match pattern"),
        ("operator.replicas=-1", r"/operator/replicas.*minimum: got -1, want 0"),
        ("backup.schedule=hourly", r"/backup/schedule.*minLength"),
        ("backup.destination.url=gs://bucket", r"/backup/destination/url.*does not match pattern"),
        (
            "operator.resources.limits.memory=lots",
            r"limits.memory is lots, which is not a quantity",
        ),
        (
            "nats.resources.limits.memory=1gb",
            r"limits.memory is 1gb.*such as 500m for cpu, 512Mi",
        ),
        ("nats.resources.requests.memory=128m", r"is 128m, which is less than a mebibyte.*write Mi or Gi"),
        ("nats.resources.requests.memory=512", r"is 512, which is less than a mebibyte"),
        ("nats.image.tag=2.11.9-alpine", r"nats.image.tag is 2.11.9-alpine, but Galley needs NATS 2.12.2"),
        ("nats.image.tag=2.12.1", r"but Galley needs NATS 2.12.2 or newer"),
        ("nats.image.tag=2.11-alpine", r"but Galley needs NATS 2.12.2 or newer"),
        ("networkPolicy.clients[0].pods=all", r"/networkPolicy/clients/0.*'pods' not allowed"),
        ("nats.enabled=false", r"there is no NATS: set nats.url to the address of yours"),
        (
            "nats.auth.enabled=false,nats.auth.existingSecret=keys",
            r"nats.auth.enabled is false: set it to true",
        ),
        (
            "nats.enabled=false,nats.url=nats://mine:4222,nats.auth.enabled=true",
            r"make a Secret with account and account.seed, and name it in nats.auth.existingSecret",
        ),
        ("backup.enabled=true", r"backup.keySecret is empty: name a Secret .* keep a copy of it outside"),
        ("backup.enabled=true,backup.keySecret=k", r"backup.destination is empty: set claimName .* or url"),
        (
            "backup.enabled=true,backup.keySecret=k,backup.destination.url=s3://b,backup.destination.claimName=c",
            r"backup.destination has claimName and url",
        ),
        ("nats.tls.issuerRef.name=a,nats.tls.existingSecret=b", r"both say where the certificate comes from"),
        ("nats.tls.enabled=false,nats.tls.existingSecret=b", r"so no certificate is used"),
        ("nats.tls.plaintext=yes", r"/nats/tls/plaintext.*must be one of 'auto', 'allow', 'refuse'"),
        ("nats.encryption.key=0", r"/nats/encryption/key.*minimum"),
        ("nats.encryption.cipher=des", r"/nats/encryption/cipher.*must be one of"),
        (
            "nats.enabled=false,nats.url=nats://mine:4222,nats.auth.enabled=false,nats.tls.existingSecret=b",
            r"write it as tls://HOST:PORT",
        ),
        (
            "nats.enabled=false,nats.url=tls://mine:4222,nats.auth.enabled=false,nats.tls.issuerRef.name=b",
            r"issuerRef makes the certificate of the NATS of the chart",
        ),
        (
            "nats.enabled=false,nats.url=tls://mine:4222,nats.auth.existingSecret=k,nats.tls.clientCertificate=true",
            r"clientCertificate needs tls.crt and tls.key in a Secret",
        ),
        (
            "nats.enabled=false,nats.url=tls://mine:4222,nats.auth.enabled=false,"  # noqa: ISC004
            "nats.tls.clientCertificate=true,nats.tls.existingSecret=a",
            r"clientCertificate needs nats.auth.enabled",
        ),
        (
            "nats.enabled=false,nats.url=nats://mine:4222,nats.auth.enabled=false,nats.encryption.enabled=true",
            r"encrypt the streams in the configuration of yours",
        ),
        ("nats.url=nats://mine:4222", r"nats.enabled is true: set nats.enabled to false to use that NATS"),
    ],
)
def test_a_wrong_value_is_refused_and_named(setting: str, says: str) -> None:
    done = helm("template", "galley", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert re.search(says, done.stderr), done.stderr


@pytest.mark.parametrize("settings", SETS.values(), ids=SETS.keys())
def test_every_pod_is_restricted(settings: Sequence[str]) -> None:
    for name, pod in pods(rendered(*settings)):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 65532, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod), name
        assert pod["automountServiceAccountToken"] is ("nats" not in name)
        assert not [each for each in pod["volumes"] if "hostPath" in each], name
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name


@pytest.mark.parametrize(
    "setting",
    [
        "nats.image.tag=2.12.2",
        "nats.image.tag=2.12-alpine",
        "nats.image.tag=alpine",
        "nats.image.tag=v2.15.0-scratch",
        "nats.resources.limits.memory=1.5Gi",
        "nats.resources.requests.cpu=1",
        "operator.resources.limits.memory=536870912",
    ],
)
def test_what_is_large_or_new_enough_is_taken(setting: str) -> None:
    assert rendered(setting)


def test_monitors_keep_the_labels_of_the_series() -> None:
    things = rendered("metrics.serviceMonitor=true", "metrics.podMonitor=true")
    [operator] = of_kind(things, "ServiceMonitor").values()
    [workers] = of_kind(things, "PodMonitor").values()
    for endpoint in (*operator["spec"]["endpoints"], *workers["spec"]["podMetricsEndpoints"]):
        assert endpoint["honorLabels"] is True


def test_alerts_come_with_the_address_of_their_runbook_and_unchanged_templates() -> None:
    url = "https://docs.example.com/runbooks"
    things = rendered("metrics.rules.enabled=true", f"metrics.rules.runbookUrl={url}/")
    [made] = of_kind(things, "PrometheusRule").values()
    source = yaml.safe_load((CHART / "files" / "prometheus" / "rules.yaml").read_text("utf-8"))
    for group, original in zip(made["spec"]["groups"], source["groups"], strict=True):
        for rule, wanted in zip(group["rules"], original["rules"], strict=True):
            page = rule.get("annotations", {}).pop("runbook_url", None)
            assert rule == wanted
            if page is not None:
                name = page.removeprefix(f"{url}/")
                assert (CHART.parents[1] / "docs" / "runbooks" / f"{name}.md").exists(), name
    assert "GalleyNoLeader" in str(made)
    assert not of_kind(rendered(), "PrometheusRule")


def test_dashboards_are_in_the_chart_as_they_are_in_its_files() -> None:
    [made] = [
        each
        for name, each in of_kind(rendered("metrics.dashboards.enabled=true"), "ConfigMap").items()
        if name.endswith("-dashboards")
    ]
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    for name, text in made["data"].items():
        assert json.loads(text) == json.loads((CHART / "files" / "grafana" / name).read_text("utf-8"))
    assert len(made["data"]) == 3


def test_the_operator_knows_the_disk_of_all_servers() -> None:
    def disk(*settings: str) -> list[str]:
        deployment = of_kind(rendered(*settings), "Deployment")["galley-operator"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        return [each["value"] for each in container["env"] if each["name"].endswith("_BROKER_STORAGE_BYTES")]

    assert disk("nats.replicas=3", "nats.storage.size=10Gi") == [str(3 * 9 * 1024**3)]
    assert disk("nats.enabled=false", "nats.url=nats://elsewhere:4222", "nats.auth.enabled=false") == []


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
    assert [role["rules"] for role in own if role["metadata"]["name"] == "galley-operator"] == [rules]


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


def test_several_servers_hand_over_and_a_single_one_ends_at_once() -> None:
    for replicas, hands_over in ((1, False), (3, True)):
        server = of_kind(rendered(f"nats.replicas={replicas}"), "StatefulSet")["galley-nats"]
        pod = server["spec"]["template"]["spec"]
        assert ("lifecycle" in pod["containers"][0]) is hands_over
        config = nats_config(f"nats.replicas={replicas}")
        assert ("lame_duck_duration" in config) is hands_over
        grace = pod["terminationGracePeriodSeconds"]
        if found := re.search(r"lame_duck_duration: (\d+)s", config):
            assert grace > int(found[1]) + 30


def test_a_change_of_the_configuration_restarts_servers() -> None:
    def annotations(*settings: str) -> Object:
        template = of_kind(rendered(*settings), "StatefulSet")["galley-nats"]["spec"]["template"]
        return dict(template["metadata"]["annotations"])

    assert annotations() == annotations("operator.logLevel=DEBUG")
    assert annotations() != annotations("nats.syncInterval=always")


def test_an_upgrade_of_the_chart_alone_leaves_nats_running(tmp_path: Path) -> None:
    later = tmp_path / "galley"
    shutil.copytree(CHART, later)
    about = later / "Chart.yaml"
    about.write_text(re.sub(r"(?m)^((?:appV|v)ersion: ).*", r"\g<1>9.9.9", about.read_text()))

    def template(chart: Path, kind: str, name: str) -> Object:
        return dict(of_kind(rendered(chart=chart), kind)[name]["spec"]["template"])

    operator, nats = ("Deployment", "galley-operator"), ("StatefulSet", "galley-nats")
    assert template(CHART, *operator) != template(later, *operator)
    assert template(CHART, *nats) == template(later, *nats)


def test_nine_tenths_of_a_volume_are_for_jetstream() -> None:
    for size, mebibytes in (("10Gi", 9216), ("500Mi", 450), ("2Ti", 1887436)):
        assert f"max_file_store: {mebibytes}Mi\n" in nats_config(f"nats.storage.size={size}")


def test_every_value_is_used_and_described_in_the_schema() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    schema = json.loads((CHART / "values.schema.json").read_text())
    for value in values((CHART / "values.yaml").read_text()):
        *above, last = value.path.split(".")
        whole = [rf"\.{'.'.join(above[:depth])} \| toJson" for depth in range(1, len(above) + 1)]
        used = [re.search(pattern, templates) for pattern in (rf"\.{last}\b", *whole)]
        assert any(used), f"{value.path} is used nowhere"
        part: Object = schema
        for step in value.path.split("."):
            assert step in part["properties"], f"{value.path} is not in the schema"
            part = part["properties"][step]


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    with (CHART.parent.parent / "pyproject.toml").open("rb") as project:
        assert chart["version"] == chart["appVersion"] == tomllib.load(project)["project"]["version"]


@pytest.mark.parametrize("settings", SETS.values(), ids=SETS.keys())
def test_an_api_server_takes_every_object(
    settings: Sequence[str], api_server: ApiServer, api_namespace: str
) -> None:
    things = rendered(*settings, namespace=api_namespace)
    others = ("monitoring.coreos.com/", "cert-manager.io/")
    known = [thing for thing in things if not thing["apiVersion"].startswith(others)]
    assert len(known) > 10
    for thing in known:
        if thing["metadata"].get("namespace") in {"one", "two"}:
            thing["metadata"]["namespace"] = api_namespace
    said = api_server.kubectl(
        # Another test may have left the definitions here.
        *("apply", "--server-side", "--force-conflicts"),
        *("--dry-run=server", "--validate=strict", "--output=name", "--filename=-"),
        given=json.dumps({"apiVersion": "v1", "kind": "List", "items": known}),
    )
    assert len(said.splitlines()) == len(known)


def test_an_api_server_that_enforces_pod_security_takes_every_pod(
    api_server: ApiServer, api_namespace: str
) -> None:
    api_server.kubectl("label", "namespace", api_namespace, "pod-security.kubernetes.io/enforce=restricted")
    every = rendered("nats.replicas=3", "operator.replicas=2", namespace=api_namespace)
    for name, pod in pods(every):
        thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}
        if "nats" in name:  # its volume is made by the StatefulSet
            pod["volumes"].append({"name": "data", "emptyDir": {}})
        api_server.kubectl(
            *("create", "--dry-run=server", "--namespace", api_namespace, "--filename=-"),
            given=json.dumps(thing),
        )


def test_notes_name_the_next_three_commands() -> None:
    done = helm("install", "mine", str(CHART), "--namespace", "here", "--dry-run=client")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    for command in (
        "helm test mine --namespace here",
        "kubectl apply --namespace default",
        "serves queues in default",
        "kubectl get taskqueues,tasks",
    ):
        assert command in notes
    assert "--clusterrole mine-galley-queue-editor" in notes


def test_the_commands_of_the_notes_work(galley_kinds: ApiServer, api_namespace: str, tmp_path: Path) -> None:
    served = f"operator.namespaces={{{api_namespace}}}"
    done = helm("install", "mine", str(CHART), "--namespace", "here", "--set", served, "--dry-run=client")
    notes = done.stdout.partition("NOTES:")[2]
    # `helm test` needs pods; `test_first_task` runs it.
    lines = [line[5:] for line in notes.splitlines() if line.startswith("     ") and "helm test" not in line]
    script = "\n".join(lines).replace(" --watch", "")
    assert script.count("kubectl ") == 3
    kubectl = galley_kinds.cluster.tool("kubectl")
    shell = subprocess.run(
        ["bash", "-e", "-c", script],
        env={
            "PATH": f"{kubectl.parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),  # kubectl caches there
            "KUBECONFIG": str(galley_kinds.kubeconfig),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    for made in (
        "taskqueue.galley.dev/hello created",
        "task.galley.dev/second created",
        "galley-queue-editor",
    ):
        assert made in shell.stdout
