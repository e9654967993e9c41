"""The chart's rules: each alert fires on what it is about and on nothing else, and has a runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generate.dashboards import DASHBOARDS
from docs.generate.metrics import EVERY
from galley.series import Kind
from tests.support.cannot_run import cannot_run
from tools.supply.tools import ToolFailed, prometheus

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts" / "galley" / "files" / "prometheus" / "rules.yaml"
CASES = Path(__file__).parent / "rules_test.yaml"

Rule = dict[str, Any]


def rules(kind: str) -> dict[str, Rule]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


ALERTS = rules("alert")


@pytest.fixture(scope="module")
def promtool() -> Path:
    try:
        return prometheus("promtool")
    except ToolFailed as error:
        cannot_run("tests of alerts", str(error))


def test_each_alert_fires_as_its_cases_say(promtool: Path, tmp_path: Path) -> None:
    cases = yaml.safe_load(CASES.read_text("utf-8"))
    cases["rule_files"] = [str(RULES)]
    # None of them fires where all is well.
    cases["tests"][0]["alert_rule_test"] = [{"eval_time": "50m", "alertname": name} for name in ALERTS]
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump(cases), "utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checked = subprocess.run(
        [promtool, "check", "rules", RULES], capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load(CASES.read_text("utf-8"))["tests"][1:]
    fired = {
        each["alertname"]
        for case in cases
        for each in case.get("alert_rule_test", ())
        if "exp_alerts" in each
    }
    assert fired == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_runbook_and_says_how_bad_it_is(alert: str) -> None:
    page = re.sub(r"(?<!^)(?=[A-Z])", "-", alert).lower() + ".md"
    text = (ROOT / "docs" / "runbooks" / page).read_text("utf-8")
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert ALERTS[alert]["labels"]["severity"] in {"warning", "critical"}
    assert set(ALERTS[alert]["annotations"]) == {"summary", "description"}


def test_there_is_no_runbook_without_an_alert() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"index"}
    assert len(pages) == len(ALERTS)


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(galley_\w+)", expression))


ENDS = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
KNOWN = {each.name + end for each in EVERY for end in ENDS.get(each.kind, ("",))}


def test_rules_and_dashboards_ask_only_for_series_that_are_served() -> None:
    asked = [rule["expr"] for kind in ("alert", "record") for rule in rules(kind).values()]
    asked += [query for board in DASHBOARDS for panel in board.panels for query, _ in panel.queries]
    assert set().union(*map(names_in, asked)) <= KNOWN
