"""Who may do what over HTTP is what the API server says, in each namespace and on each queue."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import pytest
import yaml
from joserfc import jwt
from joserfc.jwk import ECKey

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley_gateway.app import OPERATIONS
from galley_gateway.cluster_access import ClusterAccess
from galley_gateway.oidc.access import OidcAccess
from galley_gateway.oidc.mapping import ClaimMapping
from galley_gateway.oidc.provider import OidcSettings, Provider
from galley_gateway.operation import Operation
from galley_local.nats_server import NatsServer
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from tests.support.api_server import ApiServer
from tests.support.builders import a_queue
from tests.support.gateways import Served, served
from tests.support.openid import CLIENT, hostile_provider

RBAC: Final = "rbac.authorization.k8s.io/v1"
READ: Final = ["get", "list", "watch"]
WRITE: Final = [*READ, "create", "update", "patch", "delete", "deletecollection"]


class Rule(NamedTuple):
    """A rule of a Role."""

    resources: list[str]
    verbs: list[str]
    names: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "apiGroups": ["galley.dev"], "resources": self.resources, "verbs": self.verbs,
        }  # fmt: skip
        return found | ({"resourceNames": list(self.names)} if self.names else {})

    def grants(self, operation: Operation, queue: str) -> bool:
        """Say whether it grants an operation, as the documentation tells it."""
        right, about = operation.right, queue if "{queue}" in operation.path else ""
        if right.verb not in self.verbs:
            return False
        part = {"tasks": "taskqueues/tasks", "taskschedules": "taskqueues/schedules"}.get(right.resource)
        if right.resource == "taskqueues":
            return "taskqueues" in self.resources and (not self.names or about in self.names)
        if right.resource in self.resources and not self.names:
            return True
        return bool(about) and part in self.resources and (not self.names or about in self.names)


ROLES: Final[dict[str, list[Rule]]] = {
    "nothing": [],
    "viewer": [Rule(["taskqueues", "tasks", "taskschedules", "topics"], READ)],
    "task-editor": [Rule(["tasks", "taskschedules"], WRITE)],
    "queue-editor": [Rule(["taskqueues"], WRITE)],
    "submitter": [Rule(["tasks"], ["create"])],
    "publisher": [Rule(["topics/events"], ["create"]), Rule(["topics"], ["get"])],
    "listener": [Rule(["topics/events"], ["watch"])],
    "red-alone": [
        Rule(["taskqueues"], ["get"], ("red",)),
        Rule(["taskqueues/tasks", "taskqueues/schedules"], WRITE, ("red",)),
    ],
}


def _account(name: str, namespace: str, rules: list[Rule]) -> list[dict[str, Any]]:
    metadata = {"name": name, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": RBAC, "kind": "Role", "metadata": metadata,
            "rules": [each.document() for each in rules],
        },
        {
            "apiVersion": RBAC, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    ]  # fmt: skip


def _token(api: ApiServer, name: str, namespace: str) -> str:
    return api.kubectl("create", "token", name, "-n", namespace).strip()


@pytest.fixture
async def access(galley_api: ApiServer, api_namespace: str, tmp_path: Path) -> AsyncIterator[ClusterAccess]:
    """Access with the two rights that the chart gives the gateway, and no others."""
    name = f"gateway-{api_namespace}"
    rules = [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]
    galley_api.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount",
         "metadata": {"name": "gateway", "namespace": api_namespace}},
        {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": name},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
         "subjects": [{"kind": "ServiceAccount", "name": "gateway", "namespace": api_namespace}]},
        namespace=api_namespace,
    )  # fmt: skip
    document = yaml.safe_load(galley_api.kubeconfig.read_text())
    user = document["contexts"][0]["context"]["user"]
    document["users"] = [{"name": user, "user": {"token": _token(galley_api, "gateway", api_namespace)}}]
    file = tmp_path / "gateway.kubeconfig"
    file.write_text(yaml.safe_dump(document))
    async with Cluster(load_config(file)) as cluster:
        yield ClusterAccess(cluster, remembered_seconds=4.0)


@pytest.fixture
async def api(
    access: ClusterAccess, nats_server: NatsServer, galley_api: ApiServer, api_namespace: str
) -> AsyncIterator[Served]:
    """A gateway with the queues red and blue, and red in another namespace."""
    other = f"{api_namespace}-other"
    galley_api.kubectl("create", "namespace", other)
    async with Broker(nats_server.url, name="test") as broker:
        for namespace, queue in ((api_namespace, "red"), (api_namespace, "blue"), (other, "red")):
            await ensure(broker, a_queue(queue, namespace=namespace))
    accounts = [_account(name, api_namespace, rules) for name, rules in ROLES.items()]
    galley_api.kubectl.apply(*(part for each in accounts for part in each), namespace=api_namespace)
    async with served(nats_server.url, api_namespace, access) as found:
        yield found


def _request(operation: Operation, namespace: str, queue: str) -> tuple[str, str, Any]:
    path = operation.full_path.format(namespace=namespace, queue=queue, id="none", name="none")
    body = None
    if operation.takes is not None:
        # Refused after the check of rights: nothing is stored, and each cell stands for itself.
        body = {"handler": "-"} if operation.id == "submitTask" else {"wrong": True}
    if operation.waits:
        path += "?seconds=0"
    return operation.method, path, body


async def test_each_account_may_over_http_what_its_role_says_and_nothing_else(
    api: Served, galley_api: ApiServer
) -> None:
    wrong, cells = [], 0
    other = f"{api.namespace}-other"
    for name, rules in ROLES.items():
        bearer = f"Bearer {_token(galley_api, name, api.namespace)}"
        for namespace, queue in ((api.namespace, "red"), (api.namespace, "blue"), (other, "red")):
            for operation in OPERATIONS:
                method, path, body = _request(operation, namespace, queue)
                answer = await api.ask(method, api.address + path, body, Authorization=bearer)
                allowed = namespace == api.namespace and any(one.grants(operation, queue) for one in rules)
                cells += 1
                refused = answer.status == 403 and answer.body["reason"] == "NotPermitted"
                if refused is allowed or answer.status in {401, 500, 502, 503}:
                    wrong.append((name, namespace, queue, operation.id, allowed, answer.status, answer.body))
    assert (wrong, cells) == ([], len(ROLES) * 3 * len(OPERATIONS))
    print(f"{cells} cells: {len(ROLES)} accounts, 3 queues, {len(OPERATIONS)} operations")  # noqa: T201


async def test_without_a_right_nothing_tells_what_is_there(api: Served, galley_api: ApiServer) -> None:
    bearer = f"Bearer {_token(galley_api, 'nothing', api.namespace)}"

    async def answers(namespace: str, queue: str) -> list[str]:
        found = []
        for operation in OPERATIONS:
            method, path, body = _request(operation, namespace, queue)
            answer = await api.ask(method, api.address + path, body, Authorization=bearer)
            told = str(answer.body).replace(f"system:serviceaccount:{api.namespace}:nothing", "USER")
            found.append(told.replace(namespace, "NAMESPACE").replace(queue, "QUEUE"))
        return found

    assert await answers(api.namespace, "blue") == await answers("never-was", "nowhere")


async def test_what_is_no_token_of_the_cluster_is_refused(api: Served, galley_api: ApiServer) -> None:
    token = _token(galley_api, "viewer", api.namespace)
    head, _, signature = token.rpartition(".")
    flipped = ("A" if signature[9] != "A" else "B").join((signature[:9], signature[10:]))
    for given in (
        "",
        "Bearer ",
        "Bearer x",
        f"Bearer {head}.{flipped}",
        "Basic dXNlcjpwYXNz",
        f"bearer {token} x",
    ):
        headers = {"Authorization": given} if given else {}
        answer = await api.ask("GET", api.path("red"), **headers)
        assert (answer.status, "NotIdentified" in str(answer.body)) == (401, True), given
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert token not in str(answer.body)
    assert (await api.ask("GET", api.path("red"), Authorization=f"bearer {token}")).status == 200


def _signed_again(api: ApiServer, token: str, ends_in: int) -> str:
    """Return a token of the same account, signed as the API server does, that ends in so many seconds."""
    key = ECKey.import_key((api.kubeconfig.parent / "sa.key").read_text())
    head, claims = (json.loads(base64.urlsafe_b64decode(f"{part}==")) for part in token.split(".")[:2])
    now = int(time.time())
    claims |= {"iat": now - 7200, "nbf": now - 7200, "exp": now + ends_in}
    signed: str = jwt.encode(head | {"alg": "ES256"}, claims, key, algorithms=["ES256"])
    return signed


async def test_a_token_that_has_expired_is_refused(api: Served, galley_api: ApiServer) -> None:
    token = _token(galley_api, "viewer", api.namespace)
    page = f"{api.address}/ui/{api.namespace}/queues"
    for ends_in, status, shows in ((3600, 200, "/queues/red"), (-3600, 401, "Paste a token")):
        signed = _signed_again(galley_api, token, ends_in)
        answer = await api.ask("GET", api.path("red"), Authorization=f"Bearer {signed}")
        assert (answer.status, "NotIdentified" in str(answer.body)) == (status, status == 401)
        shown = await api.ask("GET", page, Cookie=f"galley-token={signed}")
        assert shows in shown.body
        assert ("/queues/red" in shown.body) == (status == 200)


async def test_a_right_that_is_taken_away_and_an_account_that_is_deleted_end_access(
    api: Served, galley_api: ApiServer
) -> None:
    bearer = f"Bearer {_token(galley_api, 'viewer', api.namespace)}"

    async def status() -> int:
        return (await api.ask("GET", api.path("red"), Authorization=bearer)).status

    async def becomes(wanted: int) -> None:
        async with asyncio.timeout(20):
            while await status() != wanted:  # noqa: ASYNC110 - the API server does not tell when it knows
                await asyncio.sleep(0.2)

    assert await status() == 200
    galley_api.kubectl("delete", "rolebinding", "viewer", "-n", api.namespace)
    await becomes(403)
    galley_api.kubectl("delete", "serviceaccount", "viewer", "-n", api.namespace)
    await becomes(401)


async def test_a_person_logs_in_with_a_token_and_sees_what_it_may(api: Served, galley_api: ApiServer) -> None:
    token = _token(galley_api, "viewer", api.namespace)
    queue = f"{api.address}/ui/{api.namespace}/queues/red"
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        async with browser.get(queue) as asked:
            assert asked.url.path == "/ui/login"
        async with browser.post(f"{api.address}/ui/login", data={"token": "wrong"}) as refused:
            assert refused.status == 401
        form = {"token": token, "next": f"/ui/{api.namespace}/queues/red"}
        async with browser.post(f"{api.address}/ui/login", data=form, allow_redirects=False) as accepted:
            cookie = accepted.headers["Set-Cookie"]
            assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/ui"))
        async with browser.get(queue) as page:
            text = await page.text()
            assert page.status == 200
            assert token not in text
            assert "disabled" in text  # a viewer may not pause
        csrf = text.split('name="csrf" value="')[1].split('"')[0]
        act = {"csrf": csrf, "namespace": api.namespace, "queue": "red", "back": "/ui/"}
        async with browser.post(f"{api.address}/ui/do/pauseQueue", data=act) as paused:
            assert paused.status == 403
        async with browser.post(f"{api.address}/ui/do/pauseQueue", data=act | {"csrf": "0"}) as forged:
            assert "its form is not from a page" in await forged.text()
        async with browser.get(f"{api.address}/ui/{api.namespace}-other/queues") as elsewhere:
            assert elsewhere.status == 403
        # The cookie is for pages: the API asks for a header that no other site can have a browser send.
        async with browser.get(api.path("red")) as bare:
            assert bare.status == 401


async def test_a_person_of_an_openid_provider_may_what_role_bindings_say(
    access: ClusterAccess, nats_server: NatsServer, galley_api: ApiServer, api_namespace: str
) -> None:
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, a_queue("red", namespace=api_namespace))
    role = _account("lookers", api_namespace, [Rule(["taskqueues"], READ)])[1]
    metadata = {"name": "lookers", "namespace": api_namespace}
    binding = {
        "apiVersion": RBAC, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lookers"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "oidc:oncall"}],
    }  # fmt: skip
    galley_api.kubectl.apply(role, binding, namespace=api_namespace)
    async with hostile_provider() as hostile:
        bare = ClaimMapping(username_prefix="", groups_prefix="")
        for mapping, groups, status in (
            (ClaimMapping(), ["oncall"], 200),
            (ClaimMapping(), ["others"], 403),
            # Even without a prefix, a provider hands out no rights of Kubernetes itself.
            (bare, ["system:masters", "system:serviceaccounts:kube-system"], 403),
        ):
            settings = OidcSettings(
                hostile.issuer, CLIENT, "http://127.0.0.1/ui/login/callback", mapping=mapping
            )
            async with Provider(settings) as provider:
                both = OidcAccess(provider, access)
                async with served(nats_server.url, api_namespace, both, provider=provider) as gateway:
                    bearer = f"Bearer {hostile.signed(groups=groups)}"
                    answer = await gateway.ask("GET", gateway.path("red"), Authorization=bearer)
                    assert answer.status == status, answer
                    page = f"{gateway.address}/ui/{api_namespace}/queues/red"
                    cookie = f"galley-token={hostile.signed(groups=groups)}"
                    assert (await gateway.ask("GET", page, Cookie=cookie)).status == status
                    drop = await gateway.ask("POST", gateway.path("red", "/pause"), Authorization=bearer)
                    assert drop.status == 403
