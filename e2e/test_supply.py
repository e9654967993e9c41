"""The supply chain: what linters say of the chart, and what is in the images and where it came from."""

import copy

import pytest

from tests.support.cannot_run import cannot_run
from tools.supply import lint_chart, tools

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    try:
        tools.kube_score()
        tools.environment("lint")
        tools.environment("supply")
    except tools.ToolFailed as error:
        cannot_run("tests of the supply chain", str(error))


def test_linters_object_to_nothing_that_is_not_explained() -> None:
    lines, well = lint_chart.lint()
    print(*lines, sep="\n")
    assert well, "\n".join(lines)


def test_a_container_that_may_do_more_is_found() -> None:
    things = copy.deepcopy(lint_chart.worker_objects())
    [deployment] = [thing for thing in things if thing["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container["securityContext"] |= {"readOnlyRootFilesystem": False, "privileged": True}
    known = lint_chart.exceptions()
    open_ = {
        (one.tool, one.check)
        for one in lint_chart.findings(things)
        if not any(each.covers(one) for each in known)
    }
    assert {("checkov", "CKV_K8S_16"), ("checkov", "CKV_K8S_22")} <= open_
    assert any(tool == "kube-score" for tool, _ in open_), open_


def test_an_exception_that_nothing_needs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    unused = lint_chart.Exception_(
        "checkov", "CKV_K8S_16", "Deployment/galley-operator", "nothing is privileged"
    )
    monkeypatch.setattr(lint_chart, "exceptions", lambda: [unused])
    monkeypatch.setattr(lint_chart, "objects", lambda: iter([("nothing", [])]))
    monkeypatch.setattr(lint_chart, "findings", lambda _: [])
    lines, well = lint_chart.lint()
    assert not well
    assert "is not needed any more" in lines[-1]
