"""kube-score and checkov on what the chart renders by default, and on the objects of a worker.

What they object to is mended, or is in `exceptions.toml` with the reason. An exception that is not needed any
more is a failure as well.
"""

import json
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from galley.resources import TaskQueue
from galley.resources.pod_resources import PodResources
from galley_operator.queues.children import Making, children_of
from galley_operator.queues.pod import with_resources
from testcluster import build
from tools.supply import tools
from tools.supply.tools import ROOT, ToolFailed, run

CHART: Final = ROOT / "charts" / "galley"
EXCEPTIONS: Final = Path(__file__).parent / "exceptions.toml"
_CRITICAL: Final = 1
_FINE: Final = 10
_SETS: Final = {
    "defaults": (),
    "three servers, two replicas, the gateway": (
        "nats.replicas=3",
        "operator.replicas=2",
        "gateway.enabled=true",
        "gateway.replicas=2",
    ),
}


class Finding(NamedTuple):
    """What a linter objects to."""

    tool: str
    check: str
    on: str
    """Kind and name of the object."""
    grade: str
    says: str


class Exception_(NamedTuple):  # noqa: N801 - the word is taken
    """A finding that stands, and why."""

    tool: str
    check: str
    on: str
    """Kind and name; `*` is any."""
    why: str

    def covers(self, finding: Finding) -> bool:
        """Return whether it explains a finding."""
        return (self.tool, self.check) == (finding.tool, finding.check) and self.on in {"*", finding.on}


def exceptions() -> list[Exception_]:
    """Return the exceptions that the repository explains."""
    found = tomllib.loads(EXCEPTIONS.read_text())["exception"]
    return [
        Exception_(each["tool"], each["check"], on, " ".join(each["why"].split()))
        for each in found
        for on in each["on"]
    ]


def rendered(settings: Sequence[str]) -> list[dict[str, Any]]:
    """Return the chart's objects.

    Raises:
        ToolFailed: if helm is not built yet, or refuses the chart.
    """
    binaries = build.built()
    if binaries is None:
        raise ToolFailed("helm is not built yet: run make e2e/build")
    options = [word for setting in settings for word in ("--set", setting)]
    words = ("template", "galley", str(CHART), "--namespace", "galley-system", "--skip-tests", *options)
    return [thing for thing in yaml.safe_load_all(run(str(binaries / "helm"), *words)) if thing]


def worker_objects() -> list[dict[str, Any]]:
    """Return the objects of a queue that says only what it must, as the operator of the chart makes them."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    resources = PodResources.model_validate(values["worker"]["resources"])
    queue = TaskQueue.model_validate(
        {"metadata": {"name": "images", "namespace": "team"}, "spec": {"worker": {"modules": ["jobs"]}}}
    )
    making = Making(
        with_resources(queue, resources),
        "0",
        "nats://galley-nats.galley-system.svc:4222",
        "galley-worker:0.2.0",
        credentials=True,
    )
    return [{"apiVersion": kind.api_version, "kind": kind.kind, **body} for kind, body in children_of(making)]


def objects() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield what is linted, and what it is called."""
    for name, settings in _SETS.items():
        yield (
            f"chart, {name}",
            [each for each in rendered(settings) if each["kind"] != "CustomResourceDefinition"],
        )
    yield "worker", worker_objects()


def findings(things: Sequence[dict[str, Any]]) -> list[Finding]:
    """Return what both linters object to in these objects.

    Raises:
        ToolFailed: if a linter cannot be installed or fails.
    """
    text = yaml.safe_dump_all(things)
    return [*_by_kube_score(text), *_by_checkov(text, things)]


def _by_kube_score(text: str) -> Iterator[Finding]:
    words = ("score", "--output-format", "json", "--output-version", "v2", "-")
    for thing in json.loads(run(str(tools.kube_score()), *words, accepted=(0, 1), given=text)):
        on = f"{thing['type_meta']['kind']}/{thing['object_meta']['name']}"
        for check in thing["checks"]:
            if check["skipped"] or check["grade"] >= _FINE:
                continue
            grade = "critical" if check["grade"] <= _CRITICAL else "warning"
            says = "; ".join(each["summary"] for each in check["comments"] or ())
            yield Finding("kube-score", check["check"]["id"], on, grade, says)


def _by_checkov(text: str, things: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    program = tools.environment("lint") / "checkov"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "objects.yaml"
        path.write_text(text)
        words = (
            "--framework",
            "kubernetes",
            "--file",
            str(path),
            "--output",
            "json",
            "--compact",
            "--skip-download",
        )
        said = json.loads(run(str(program), *words, accepted=(0, 1), settings={"LOG_LEVEL": "ERROR"}))
    for check in said["results"]["failed_checks"]:
        yield Finding(
            "checkov", check["check_id"], _named(check["resource"], things), "failed", check["check_name"]
        )


def _named(resource: str, things: Sequence[dict[str, Any]]) -> str:
    """Return kind and name of what checkov calls `KIND.NAMESPACE.NAME`, or after a pod's labels."""
    kind = resource.partition(".")[0]
    names = {thing["metadata"]["name"] for thing in things}
    exact = resource.rpartition(".")[2]
    if exact in names:
        return f"{kind}/{exact}"
    return f"{kind}/{next((name for name in sorted(names) if f'.{name}.' in f'{resource}.'), resource)}"


def lint() -> tuple[list[str], bool]:
    """Return the lines of a report, and whether all is well.

    Raises:
        ToolFailed: if a linter cannot be installed or fails.
    """
    known, used, lines, well = exceptions(), set(), [], True
    for name, things in objects():
        found = findings(things)
        covered = {one: [each for each in known if each.covers(one)] for one in found}
        used |= {each for reasons in covered.values() for each in reasons}
        open_ = [one for one, reasons in covered.items() if not reasons]
        kinds = {
            grade: sum(one.grade == grade for one in found) for grade in ("critical", "warning", "failed")
        }
        lines.append(
            f"{name}: {len(things)} objects; "
            f"kube-score {kinds['critical']} critical, {kinds['warning']} warnings; "
            f"checkov {kinds['failed']} failed; {len(found) - len(open_)} explained, {len(open_)} open"
        )
        lines += [f"  {one.tool} {one.check} on {one.on}: {one.says}" for one in open_]
        well = well and not open_
    for each in known:
        if each not in used:
            lines.append(
                f"exceptions.toml: {each.tool} {each.check} on {each.on} is not needed any more: remove it"
            )
            well = False
    return lines, well
