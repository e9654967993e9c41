"""What goes wrong with a real API server is told so that one knows what to do."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import ClusterConfig, Token, load_config
from galley_operator.cluster.errors import (
    ClusterUnreachable,
    CredentialsRefused,
    KindNotServed,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    RightsMissing,
)
from galley_operator.cluster.resource import CONFIGMAPS, TASKS, Resource
from tests.support.api_server import ApiServer

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def cluster(galley_api: ApiServer) -> AsyncIterator[Cluster]:
    async with Cluster(load_config(galley_api.kubeconfig)) as cluster:
        yield cluster


def as_account(api: ApiServer, namespace: str, token: Token) -> ClusterConfig:
    """Return the way of a ServiceAccount, without the administrator's certificate."""
    authority, _, _ = api.credentials
    tls = ssl.create_default_context(cafile=str(authority))
    return replace(load_config(api.kubeconfig), tls=tls, token=token, namespace=namespace)


async def test_a_missing_right_is_named_with_the_account_that_lacks_it(
    galley_api: ApiServer, api_namespace: str
) -> None:
    kubectl = galley_api.kubectl
    kubectl("create", "serviceaccount", "bare", "-n", api_namespace)
    token = kubectl("create", "token", "bare", "-n", api_namespace).strip()
    async with Cluster(as_account(galley_api, api_namespace, Token(token))) as cluster:
        with pytest.raises(RightsMissing) as raised:
            _ = [page async for page in cluster.pages(TASKS, api_namespace)]
    assert raised.value.hint == (
        f"give the ServiceAccount {api_namespace}/bare the right to 'list' on 'tasks' of galley.dev "
        f'in the namespace "{api_namespace}"'
    )


async def test_a_token_that_was_renewed_in_its_file_is_found_when_the_old_one_is_refused(
    galley_api: ApiServer, api_namespace: str, tmp_path: Path
) -> None:
    kubectl, file = galley_api.kubectl, tmp_path / "token"
    kubectl("create", "serviceaccount", "renewed", "-n", api_namespace)
    account = f"--serviceaccount={api_namespace}:renewed"
    kubectl("create", "role", "reader", "--verb=list", "--resource=configmaps", "-n", api_namespace)
    kubectl("create", "rolebinding", "reader", "--role=reader", account, "-n", api_namespace)
    file.write_text("old")
    token = Token(file)
    assert token.text() == "old"
    file.write_text(kubectl("create", "token", "renewed", "-n", api_namespace).strip())
    async with Cluster(as_account(galley_api, api_namespace, token)) as cluster:
        assert [page async for page in cluster.pages(CONFIGMAPS, api_namespace)]


async def test_an_unknown_account_is_told_from_one_without_rights(
    galley_api: ApiServer, api_namespace: str
) -> None:
    async with Cluster(as_account(galley_api, api_namespace, Token("made up"))) as cluster:
        with pytest.raises(CredentialsRefused):
            await cluster.get(CONFIGMAPS, api_namespace, "one")


async def test_a_missing_definition_is_told_from_a_missing_object(
    cluster: Cluster, api_namespace: str
) -> None:
    with pytest.raises(ObjectNotFound):
        await cluster.get(TASKS, api_namespace, "none")
    unknown = Resource("galley.dev", "v1alpha1", "taskboards", "TaskBoard")
    with pytest.raises(KindNotServed, match="taskboards"):
        await cluster.get(unknown, api_namespace, "none")


async def test_what_is_wrong_with_an_object_is_quoted(cluster: Cluster, api_namespace: str) -> None:
    wrong = {"metadata": {"name": "one", "namespace": api_namespace}, "spec": {"handler": "echo"}}
    body = {"apiVersion": TASKS.api_version, "kind": "Task", **wrong}
    with pytest.raises(ObjectInvalid, match="queueName"):
        await cluster.create(TASKS, body)


async def test_fields_of_another_manager_are_left_to_it_unless_forced(
    cluster: Cluster, api_namespace: str
) -> None:
    def body(text: str) -> dict[str, object]:
        return {"metadata": {"name": "one", "namespace": api_namespace}, "data": {"text": text}}

    await cluster.apply(CONFIGMAPS, body("a"), manager="first")
    with pytest.raises(ObjectConflict, match="first"):
        await cluster.apply(CONFIGMAPS, body("b"), manager="second", force=False)
    applied = await cluster.apply(CONFIGMAPS, body("b"), manager="second")
    assert applied["data"] == {"text": "b"}


async def test_a_server_that_is_not_there_is_named(galley_api: ApiServer) -> None:
    nowhere = replace(load_config(galley_api.kubeconfig), server="https://127.0.0.1:1")
    async with Cluster(nowhere) as cluster:
        with pytest.raises(ClusterUnreachable, match="get configmaps default/one"):
            await cluster.get(CONFIGMAPS, "default", "one")
        with pytest.raises(ClusterUnreachable, match="patch tasks/status default/one"):
            await cluster.replace_status(TASKS, "default", "one", "1", {"phase": "Queued"})
