"""The chart: what it refuses, what it makes of a set of values, and that an API server takes all of it."""

import json
import re
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from docs.generate.chart import CHART, values
from e2e.chart_values import SETS
from e2e.rendered_chart import Object, helm, nats_config, of_kind, pods, rendered, set_to
from galley.resources.pod_resources import amount
from galley_gateway.settings import read_settings
from tests.support.api_server import ApiServer

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("settings", SETS.values(), ids=SETS.keys())
def test_helm_has_nothing_to_say_against_it(settings: Sequence[str]) -> None:
    done = helm("lint", "--strict", str(CHART), *set_to(settings))
    assert done.returncode == 0, done.stdout + done.stderr


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


def test_monitors_keep_the_labels_of_the_series() -> None:
    things = rendered("metrics.serviceMonitor=true", "metrics.podMonitor=true")
    [operator] = of_kind(things, "ServiceMonitor").values()
    [workers] = of_kind(things, "PodMonitor").values()
    for endpoint in (*operator["spec"]["endpoints"], *workers["spec"]["podMetricsEndpoints"]):
        assert endpoint["honorLabels"] is True


def test_the_monitor_of_the_gateway_finds_its_pods_and_their_port() -> None:
    things = rendered("metrics.podMonitor=true", "gateway.enabled=true")
    spec = of_kind(things, "PodMonitor")["galley-gateway"]["spec"]
    pod = of_kind(things, "Deployment")["galley-gateway"]["spec"]["template"]
    assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [endpoint] = spec["podMetricsEndpoints"]
    ports = pod["spec"]["containers"][0]["ports"]
    assert endpoint["port"] in {each["name"] for each in ports}
    assert not of_kind(rendered("metrics.podMonitor=true"), "PodMonitor").keys() & {"galley-gateway"}


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


@pytest.mark.parametrize(
    ("listed", "origin"),
    [((), "10.2.0.9"), (("10.2.0.0/16", "192.0.2.255", "2001:db8::/32"), "203.0.113.9")],
)
def test_the_gateway_reads_the_proxies_that_are_listed(listed: tuple[str, ...], origin: str) -> None:
    values = [f"gateway.trustedProxies={{{','.join(listed)}}}"] if listed else []
    gateway = of_kind(rendered("gateway.enabled=true", *values), "Deployment")["galley-gateway"]
    [container] = gateway["spec"]["template"]["spec"]["containers"]
    settings = read_settings({each["name"]: each["value"] for each in container["env"] if "value" in each})
    forwarded = (b"x-forwarded-for", b"203.0.113.9, 2001:db8::7, 192.0.2.255")
    assert settings.proxies.origin({"client": ("10.2.0.9", 1), "headers": [forwarded]}) == origin


def test_the_route_of_the_gateway_is_one_that_the_gateway_api_takes() -> None:
    things = rendered(
        "operator.namespaces={one}", "gateway.enabled=true", "gateway.hosts={galley.example.com}",
        "gateway.httpRoute.parentRefs[0].name=public", "gateway.httpRoute.parentRefs[0].namespace=edge",
        "gateway.httpRoute.parentRefs[0].sectionName=https",
    )  # fmt: skip
    route = of_kind(things, "HTTPRoute")["galley-gateway"]
    schema = json.loads((Path(__file__).parent / "schemas/http-route.json").read_text())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(route)] == []
    [service] = [each for name, each in of_kind(things, "Service").items() if name == "galley-gateway"]
    [rule] = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "galley-gateway", "port": service["spec"]["ports"][0]["port"]}]
    route["spec"]["rules"][0]["backendRefs"][0]["prot"] = 80
    assert list(Draft202012Validator(schema).iter_errors(route))


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


@pytest.mark.parametrize(
    ("limit", "told"), [("1Gi", "644245094"), ("1.5Gi", "966367641"), ("1G", "600000000"), ("null", None)]
)
def test_nats_knows_six_tenths_of_its_memory_limit(limit: str, told: str | None) -> None:
    things = rendered(f"nats.resources.limits.memory={limit}")
    container = of_kind(things, "StatefulSet")["galley-nats"]["spec"]["template"]["spec"]["containers"][0]
    assert {each["name"]: each.get("value") for each in container["env"]}.get("GOMEMLIMIT") == told
    assert container["resources"]["requests"]["cpu"] == "500m"


def test_answers_that_a_tenant_does_not_read_fit_into_the_memory_of_nats() -> None:
    """Most that was measured (docs/operations/quotas.md), beside what the collection of garbage waits for."""
    most = 1356 * 1024**2
    container = of_kind(rendered(), "StatefulSet")["galley-nats"]["spec"]["template"]["spec"]["containers"][0]
    limit = amount(container["resources"]["limits"]["memory"])
    collects = next(int(each["value"]) for each in container["env"] if each["name"] == "GOMEMLIMIT")
    assert collects < most < 0.75 * int(limit)


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
