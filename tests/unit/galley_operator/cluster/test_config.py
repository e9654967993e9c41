import base64
from pathlib import Path

import pytest
import yaml

from galley_operator.cluster.config import TOKEN_SECONDS, Token, from_kubeconfig, in_cluster, load_config
from galley_operator.cluster.errors import ClusterConfigInvalid

AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIBADAKBggqhkjOPQQDAjAjMSEwHwYDVQQDDBhrM3Mtc2Vy
dmVyLWNhQDE2MDAwMDAwMDAwHhcNMjAwOTEzMTIyNjQwWhcNMzAwOTExMTIyNjQw
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_kubeconfig(folder: Path, user: dict[str, object], server: str = "http://127.0.0.1:1") -> Path:
    file = folder / "config"
    file.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [
                    {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "images"}}
                ],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return file


def test_a_token_in_a_file_is_read_again_when_it_may_have_been_renewed(tmp_path: Path) -> None:
    file, clock = tmp_path / "token", Clock()
    file.write_text("first\n")
    token = Token(file, clock)
    assert token.text() == "first"
    file.write_text("second\n")
    assert token.text() == "first"
    clock.now = TOKEN_SECONDS
    assert token.text() == "second"


def test_a_token_that_was_refused_is_read_again_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    token = Token(file, Clock())
    assert token.text() == "first"
    file.write_text("second")
    token.refused()
    assert token.text() == "second"


def test_a_token_that_cannot_be_read_says_which_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ClusterConfigInvalid) as raised:
        Token(tmp_path / "token").text()
    assert str(tmp_path / "token") in str(raised.value)
    assert "automountServiceAccountToken" in raised.value.hint


def test_a_kubeconfig_gives_server_namespace_and_token(tmp_path: Path) -> None:
    config = from_kubeconfig(a_kubeconfig(tmp_path, {"token": "secret"}, "http://127.0.0.1:8080/"))
    assert config.server == "http://127.0.0.1:8080"
    assert config.namespace == "images"
    assert config.tls is None
    assert config.token is not None
    assert config.token.text() == "secret"


def test_a_file_named_in_a_kubeconfig_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("beside")
    config = from_kubeconfig(a_kubeconfig(tmp_path, {"tokenFile": "token"}))
    assert config.token is not None
    assert config.token.text() == "beside"


def test_a_login_by_program_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ClusterConfigInvalid, match="logs in by a program") as raised:
        from_kubeconfig(a_kubeconfig(tmp_path, {"exec": {"command": "aws"}}))
    assert "kubectl create token" in raised.value.hint


@pytest.mark.parametrize("text", ["", "[]", "current-context: nowhere\ncontexts: []\n", "{"])
def test_what_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ClusterConfigInvalid, match="no kubeconfig with a current context"):
        from_kubeconfig(tmp_path / "config")


def test_certificates_that_are_none_are_named(tmp_path: Path) -> None:
    file = a_kubeconfig(tmp_path, {}, "https://127.0.0.1:1")
    document = yaml.safe_load(file.read_text())
    broken = base64.b64encode(AUTHORITY.encode()).decode()
    document["clusters"][0]["cluster"]["certificate-authority-data"] = broken
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ClusterConfigInvalid, match="certificates cannot be used"):
        from_kubeconfig(file)


def test_a_pod_without_its_token_is_told_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ClusterConfigInvalid, match="token cannot be read"):
        in_cluster(tmp_path, "10.0.0.1", "443")


def test_a_pod_without_the_authority_of_its_cluster_is_told_where_it_would_be(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("ours")
    with pytest.raises(ClusterConfigInvalid, match="what a pod knows about its cluster") as raised:
        in_cluster(tmp_path, "10.0.0.1", "443")
    assert str(tmp_path) in str(raised.value)


def test_without_a_pod_and_a_kubeconfig_it_is_said_that_there_is_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(ClusterConfigInvalid, match="no kubeconfig was named"):
        load_config()
