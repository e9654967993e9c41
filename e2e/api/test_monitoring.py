"""A real Prometheus beside a real operator and worker: every panel has data, and an alert fires."""

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generate.chart import CHART
from docs.generate.dashboards import DASHBOARDS
from e2e.api.operator_process import operator
from e2e.api.scene import Scene
from galley import AsyncClient, TaskFailed, call
from tests.support.cannot_run import cannot_run
from tests.support.eventually import eventually
from tools.supply.tools import ToolFailed, prometheus

pytestmark = pytest.mark.timeout(180)

RULES = CHART / "files" / "prometheus" / "rules.yaml"


class Prometheus:
    """One process, which looks at some targets every second."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **query: str) -> Any:
        asked = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def values(self, query: str) -> list[Any]:
        data = self.ask("query", query=query)
        return [] if data is None else [each for each in data["result"] if each["value"][1] != "NaN"]

    def firing(self) -> set[str]:
        data = self.ask("alerts")
        alerts = [] if data is None else data["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


@contextmanager
def watching(folder: Path, *ports: int, rules: Path = RULES) -> Iterator[Prometheus]:
    try:
        program = prometheus()
    except ToolFailed as error:
        cannot_run("dashboards in a Prometheus", str(error))
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": "galley",
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{each}" for each in ports]}],
            }
        ],
    }
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait(10)


async def test_every_panel_has_data_and_a_dead_letter_raises_its_alert(scene: Scene) -> None:
    queue = await scene.queue(retry={"attempts": 1})
    settings: dict[str, Any] = {
        "namespaces": scene.namespace, "install": "galley", "lease_namespace": scene.namespace,
        "sweep_seconds": 2, "broker_storage_bytes": 10 * 1024**3,
    }  # fmt: skip
    with (
        operator(scene.api.kubeconfig, scene.server, scene.folder, **settings) as running,
        watching(scene.folder, running.port) as seen,
    ):
        await eventually(lambda: running.leads, within=30)
        await eventually(lambda: bool(seen.values("galley_queue_outcomes_total")), within=40)
        with scene.workers(queue):
            async with AsyncClient(scene.server, scene.namespace) as client:
                for number in range(20):
                    await (await client.submit(call("drills", "echo", value=number))).result(within=30)
                with pytest.raises(TaskFailed):
                    await (await client.submit(call("drills", "fail_for_good", message="no"))).result(
                        within=30
                    )
            await eventually(lambda: "GalleyDeadLetters" in seen.firing(), within=60)
            empty: dict[str, list[str]] = {}

            def all_have_data() -> bool:
                for board in DASHBOARDS:
                    queries = [query for panel in board.panels for query, _ in panel.queries]
                    named = [each.replace("$namespace", scene.namespace) for each in queries]
                    named = [each.replace("$queue", ".*") for each in named]
                    empty[board.uid] = [each for each in named if not seen.values(each)]
                return not any(empty.values())

            with suppress(AssertionError):  # which panels have none is said below
                await eventually(all_have_data, within=30)
            assert empty == {board.uid: [] for board in DASHBOARDS}
            assert {"GalleyNoLeader", "GalleyBrokerUnreachable", "GalleyStorageNearlyFull"}.isdisjoint(
                seen.firing()
            )
