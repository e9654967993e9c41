"""The chart's NATS on loopback as several servers, with the Secrets that the operator makes.

`kubelet` stands for what brings a changed Secret into a running pod. The rest is real: the configuration is
what `helm template` renders, the servers are nats-server, and the operator's own classes make the Secrets.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from e2e.rendered_chart import nats_config, of_kind, rendered
from e2e.rendered_nats import on_this_machine
from galley.broker.account_directory import AccountDirectory
from galley.broker.connection import Broker
from galley.broker.permissions import Role
from galley.tls import Tls
from galley_local.nats_binary import nats_server_binary
from galley_local.orphan_guard import dying_with_us
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.authority import Authority
from galley_operator.credentials.certificate import Times
from galley_operator.credentials.key_secret import entries_of
from galley_operator.credentials.queue_roles import Holder, credentials_of
from galley_operator.credentials.registrar import Registrar
from galley_operator.credentials.server_secret import ServerCertificate, ServerSecret
from galley_operator.credentials.store_key import ensure_store_key
from galley_operator.credentials.trust import made_keys
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.port import free_port

NAMESPACE: Final = "galley-system"
_CONTAINER_SECONDS: Final = 30


class RenderedCluster:
    """The servers of one release."""

    def __init__(self, folder: Path, *settings: str, times: Times | None = None) -> None:
        """Describe them.

        Args:
            folder: for all they have.
            settings: values of the chart.
            times: how long certificates are good for.
        """
        self.folder, self.settings = folder, settings
        self.secrets = MemoryCluster()
        """Where the operator keeps its Secrets."""
        self.keys = made_keys(time.time())
        authority = Authority.read(self.keys, "the test's keys")
        assert authority is not None
        self.authority = authority
        things = rendered(*settings)
        stateful = of_kind(things, "StatefulSet")["galley-nats"]["spec"]
        self._pod: dict[str, Any] = stateful["template"]["spec"]
        count = stateful["replicas"]
        self._client_ports = [free_port() for _ in range(count)]
        self._route_ports = [free_port() for _ in range(count)]
        [operator] = of_kind(things, "Deployment")["galley-operator"]["spec"]["template"]["spec"][
            "containers"
        ]
        self._told = {each["name"]: each.get("value", "") for each in operator["env"]}
        self.server_secret = ServerSecret(
            self.secrets,
            NAMESPACE,
            "galley-nats-server",
            self._told["GALLEY_OPERATOR_SERVER_HOSTS"].split(","),
            times=times,
        )
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._registered: set[tuple[str, str]] = set()
        self._mounted: dict[str, str] = {}
        self.ca_file = folder / "ca.crt"
        """What clients trust, as a pod has it in a volume."""

    @property
    def urls(self) -> Sequence[str]:
        """The address of each server."""
        return [f"tls://127.0.0.1:{port}" for port in self._client_ports]

    @property
    def route_ports(self) -> Sequence[int]:
        """The port of each server for the others."""
        return self._route_ports

    @property
    def tls(self) -> Tls:
        """How clients encrypt."""
        return Tls(self.ca_file)

    async def prepare(self, *, store_key: int = 0) -> ServerCertificate:
        """Have the Secrets that servers wait for, as the operator does before there is a NATS."""
        if store_key:
            await ensure_store_key(self.secrets, NAMESPACE, "galley-nats-store", store_key)
        certificate = await self.server_secret.ensure()
        await self.mount()
        return certificate

    async def mount(self) -> None:
        """Bring Secrets into the volumes of pods: each volume changes as a whole, as the kubelet does it."""
        for volume in self._pod["volumes"]:
            if (secret := volume.get("secret")) is None:
                continue
            if secret["secretName"] == "galley-nats-auth":
                entries: Mapping[str, str] = self.keys
            else:
                entries = entries_of(await self.secrets.get(SECRETS, NAMESPACE, secret["secretName"]))
            shown = {item["path"]: entries[item["key"]] for item in secret["items"]}
            self._swap(volume["name"], shown)
            if "ca.crt" in shown:
                fresh = self.ca_file.with_suffix(".fresh")
                fresh.write_text(shown["ca.crt"])
                fresh.replace(self.ca_file)

    def _swap(self, name: str, entries: Mapping[str, str]) -> None:
        target = self.folder / f"{name}-{time.monotonic_ns()}"
        target.mkdir()
        for path, text in entries.items():
            (target / path).write_text(text)
        link = self.folder / f"{name}.new"
        link.symlink_to(target)
        os.replace(link, self.folder / name)  # noqa: PTH105 - a link is replaced, not what it leads to

    def configure(self, number: int, rendered_config: str | None = None) -> Path:
        """Write the configuration of a server and return its file."""
        home = self.folder / f"nats-{number}"
        home.mkdir(exist_ok=True)
        text = rendered_config or nats_config(*self.settings)
        volumes = {"nats-server": "server", "nats-store": "store", "nats-auth": "auth"}
        mounted = {f"/etc/{place}": self.folder / name for place, name in volumes.items()}
        # What a file includes is named from the folder of the file.
        mounted |= {f"../{place}": Path("..") / name for place, name in volumes.items()}
        places = {place: here for place, here in mounted.items() if place in text}
        ports = {"4222": self._client_ports[number]}
        if len(self._client_ports) > 1:
            ports["6222"] = self._route_ports[number]
        path = home / "nats.conf"
        path.write_text(on_this_machine(text, home, places, ports))
        return path

    async def start(self, *numbers: int, config: str | None = None) -> None:
        """Start servers, all of them by default, and wait until they take clients.

        Args:
            numbers: which.
            config: as a chart renders it; that of these settings by default.
        """
        for number in numbers or range(len(self._client_ports)):
            path = self.configure(number, config)
            self._prepare_volume(number)
            self._processes[number] = self.run(path, await self.environment(number), number)
        for number in numbers or range(len(self._client_ports)):
            await eventually(partial(self._ready, number), within=_CONTAINER_SECONDS)

    def _prepare_volume(self, number: int) -> None:
        """Run the containers that come before a server's own."""
        data = self.folder / f"nats-{number}" / "data"
        data.mkdir(exist_ok=True)
        for container in self._pod.get("initContainers", ()):
            *shell, script = container["command"]
            script = script.replace("/data", str(data))
            subprocess.run([*shell, script], check=True, capture_output=True, timeout=_CONTAINER_SECONDS)

    def _ready(self, number: int) -> bool:
        return "Server is ready" in self.log(number)

    async def environment(self, number: int) -> dict[str, str]:
        """Return the environment of a server's container; Kubernetes expands `$(NAME)`."""
        told = {"POD_NAME": f"galley-nats-{number}"}
        for each in self._pod["containers"][0]["env"]:
            if source := each.get("valueFrom", {}).get("secretKeyRef"):
                secret = entries_of(await self.secrets.get(SECRETS, NAMESPACE, source["name"]))
                told[each["name"]] = secret[source["key"]]
            elif "value" in each:
                value = each["value"]
                for name, text in told.items():
                    value = value.replace(f"$({name})", text)
                for index, port in enumerate(self._route_ports):
                    value = value.replace(
                        f"galley-nats-{index}.galley-nats-headless:6222", f"127.0.0.1:{port}"
                    )
                told[each["name"]] = value
        return told

    def run(self, config: Path, environment: Mapping[str, str], number: int) -> subprocess.Popen[bytes]:
        """Run a server; its log is a new one."""
        with (self.folder / f"nats-{number}" / "log").open("wb") as log:
            return subprocess.Popen(
                dying_with_us(str(nats_server_binary()), "--config", str(config)),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, *numbers: int) -> None:
        """End servers without a word, all of them by default."""
        for number in numbers or tuple(self._processes):
            process = self._processes.pop(number)
            process.kill()
            process.wait(10)

    def log(self, number: int) -> str:
        """Return what a server has logged since its start."""
        return (self.folder / f"nats-{number}" / "log").read_text()

    def operator(self, number: int = 0) -> Broker:
        """Return the operator's connection, not yet opened."""
        return Broker(
            self.urls[number],
            name="operator",
            connect_seconds=30,
            credentials=lambda: self.authority.streams.credentials("operator", None),
            tls=self.tls,
        )

    def directory(self) -> AccountDirectory:
        """Return a connection to the system account, not yet opened."""
        system = self.authority.system
        return AccountDirectory(
            self.urls[0], lambda: system.credentials("operator", None), connect_seconds=30, tls=self.tls
        )

    async def credentials(self, role: Role, namespace: str, queue: str) -> Path:
        """Register the accounts of a queue and return a file with credentials of a role."""
        if (namespace, queue) not in self._registered:
            async with self.directory() as directory:
                registrar = Registrar(self.authority, directory)
                await registrar.ensure_streams()
                await registrar.ensure(namespace, queue)
            self._registered.add((namespace, queue))
        holder = Holder(role, namespace, queue)
        path = self.folder / f"{role}.creds"
        path.write_text(credentials_of(self.authority.account_of(holder), holder, time.time()))
        return path

    @asynccontextmanager
    async def kubelet(self, seconds: float = 0.2) -> AsyncIterator[None]:
        """Bring changed Secrets into volumes for as long as the block."""

        async def work() -> None:
            seen: object = None
            while True:
                try:
                    secret = await self.secrets.get(SECRETS, NAMESPACE, "galley-nats-server")
                except ObjectNotFound:
                    secret = {}
                if secret.get("data") != seen:
                    seen = secret.get("data")
                    await self.mount()
                await asyncio.sleep(seconds)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(work())
            try:
                yield
            finally:
                task.cancel()
