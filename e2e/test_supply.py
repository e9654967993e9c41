"""The supply chain: what linters say of the chart, and what is in the images and where it came from."""

import base64
import copy
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from testcluster.errors import CannotRunHere
from testcluster.images.build import archives
from testcluster.images.image import NATS, OPERATOR
from tests.support.cannot_run import cannot_run
from tools.supply import advisories, licences, lint_chart, provenance, sbom, tools
from tools.supply.sbom import Bill

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


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    try:
        return archives([OPERATOR.name, NATS])
    except CannotRunHere as error:
        cannot_run("tests of images", str(error))


@pytest.fixture(scope="module")
def bills(built: dict[str, Path]) -> dict[str, Bill]:
    return {name: sbom.of_image(name, archive) for name, archive in built.items()}


def test_the_bill_of_an_image_is_valid_and_names_what_is_locked_and_the_distribution(
    bills: dict[str, Bill], tmp_path: Path
) -> None:
    bill = bills[OPERATOR.name]
    assert json.loads(sbom.write("operator", bill, tmp_path).read_text()) == bill
    kinds = sbom.count([bill])
    assert kinds["pypi"] > 20
    assert kinds["deb"] > 50
    text = (tools.ROOT / "requirements" / "operator.txt").read_text()
    locked = {line.partition("==")[0].lower() for line in text.splitlines() if "==" in line}
    named = {name.lower().replace("_", "-") for name, _ in sbom.names([bill])}
    # Of the locked packages, those for other systems and older Pythons are not installed.
    assert locked - named <= {"async-timeout", "colorama", "tzdata", "typing-extensions"}, locked - named
    assert {"python3.13", "libc6", "galley-tasks"} <= named


def test_a_bill_that_is_not_cyclonedx_is_refused(bills: dict[str, Bill]) -> None:
    with pytest.raises(tools.ToolFailed, match="not a valid CycloneDX document"):
        sbom.checked({**bills[NATS], "components": [{"name": "no type"}]})


def test_provenance_names_commit_inputs_and_the_digest_of_the_image(built: dict[str, Path]) -> None:
    archive = built[OPERATOR.name]
    made = provenance.of_image(OPERATOR, archive)
    assert made["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {each["digest"]["sha256"] for each in made["subject"]} == {
        sbom.sha256(archive),
        bills_digest(archive),
    }
    inputs = {
        each["name"]: each["digest"] for each in made["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=tools.ROOT
    )
    assert inputs["galley"] == {"gitCommit": head.stdout.strip()}
    lock = tools.ROOT / "requirements" / "operator.txt"
    assert inputs["requirements/operator.txt"] == {"sha256": sbom.sha256(lock)}
    assert any(name.startswith("kopf-") for name in inputs)


def test_provenance_is_signed_with_a_key_of_yours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, key = Ed25519PrivateKey.generate(), tmp_path / "key.pem"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv(provenance.SIGNING_KEY, str(key))
    path = provenance.write("x", provenance.statement("wheel", [], {}, []), tmp_path)
    envelope = json.loads((tmp_path / "x.provenance.dsse.json").read_text())
    body = base64.b64decode(envelope["payload"])
    assert body == path.read_bytes()
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    private.public_key().verify(signature, provenance.signed_bytes(body))
    with pytest.raises(InvalidSignature):
        private.public_key().verify(signature, provenance.signed_bytes(body + b" "))
    for text in (
        b"no key",
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
    ):
        key.write_bytes(text)
        with pytest.raises(tools.ToolFailed, match="GALLEY_SIGNING_KEY"):
            provenance.write("x", {}, tmp_path)


def bills_digest(archive: Path) -> str:
    """Return the digest of an image's configuration, from the archive's list of contents."""
    listed = subprocess.run(["tar", "tf", str(archive)], capture_output=True, text=True, check=True)
    [config] = [line for line in listed.stdout.splitlines() if line.endswith(".json") and len(line) == 69]
    return config.removesuffix(".json")


def test_every_licence_is_allowed_and_one_that_is_not_is_found(bills: dict[str, Bill]) -> None:
    rules = licences.policy()
    assert [each for each in licences.licensed(bills, rules) if each.problem] == []
    strict = {**rules, "allowed": [each for each in rules["allowed"] if each != "MIT"], "read_in_sources": {}}
    wrong = {each.name: each.problem for each in licences.licensed(bills, strict) if each.problem}
    assert wrong["kopf"] == "not on the list: MIT"
    assert wrong["github.com/nats-io/nkeys"] == "it names no licence"


def test_known_vulnerabilities_are_found_and_each_that_stands_has_a_reason(bills: dict[str, Bill]) -> None:
    found = advisories.by_vulndb(sbom.components(bills, "golang"))
    if found.problem:
        cannot_run("the audit of Go modules", found.problem)
    assert {each.id for each in found.found} == advisories.known().keys()
    old = advisories.by_vulndb([("github.com/nats-io/nats-server/v2", "v2.7.3")])
    assert "GO-2022-0351" in {each.id for each in old.found}
    listed = advisories.by_list([("PyYAML", "5.3"), ("rich", "15.0.0")])
    assert {each.name for each in listed.found} == {"PyYAML"}


def test_a_source_that_knows_nothing_is_not_taken_for_good_news() -> None:
    answer = advisories.by_index([("no-such-package-of-ours-at-all", "1.0")])
    assert answer.looked_at == 0
    assert answer.problem
