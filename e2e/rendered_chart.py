"""What helm makes of the chart and a set of values, without a cluster."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from docs.generate.chart import CHART
from testcluster import build
from tests.support.cannot_run import cannot_run

Object = dict[str, Any]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run helm without a cluster in reach, whether or not it succeeds."""
    binaries = build.built()
    if binaries is None:
        cannot_run("tests of the chart", "helm is not built; make e2e/build")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBE")}
    return subprocess.run(
        [str(binaries / "helm"), *words], capture_output=True, text=True, check=False, env=environment
    )


def set_to(settings: Sequence[str]) -> list[str]:
    """Return helm's options for settings such as `nats.replicas=3`."""
    return [word for setting in settings for word in ("--set", setting)]


def rendered(*settings: str, namespace: str = "galley-system", chart: Path = CHART) -> list[Object]:
    """Return all objects of the chart with these settings."""
    done = helm("template", "galley", str(chart), "--namespace", namespace, *set_to(settings))
    assert done.returncode == 0, done.stderr
    # The definitions are thousands of lines, which the parser in Python reads for seconds.
    return [thing for thing in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if thing]


def of_kind(things: Sequence[Object], kind: str) -> dict[str, Object]:
    """Return those of one kind, by name."""
    return {thing["metadata"]["name"]: thing for thing in things if thing["kind"] == kind}


def nats_config(*settings: str) -> str:
    """Return the configuration its NATS gets with these settings."""
    return str(of_kind(rendered(*settings), "ConfigMap")["galley-nats"]["data"]["nats.conf"])


def pods(things: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the specification of each pod there would be, and what it would be called after."""
    for thing in things:
        if thing["kind"] == "CronJob":
            yield thing["metadata"]["name"], thing["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif thing["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield thing["metadata"]["name"], thing["spec"]["template"]["spec"]
        elif thing["kind"] == "Pod":
            yield thing["metadata"]["name"], thing["spec"]
