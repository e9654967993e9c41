"""Settings of a worker, read from its environment."""

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from galley.broker.connection import DEFAULT_SERVER
from galley.broker.topology import LEASE_SECONDS
from galley.encryption.given import ALL_QUEUES, payloads_with, read_given
from galley.encryption.payloads import Payloads
from galley.errors import ManifestInvalid
from galley.objects.node_cache import DEFAULT_BYTES, default_folder
from galley.resources.task_queue import TaskQueue
from galley.tls import Tls, tls_of
from galley_worker.errors import SettingsInvalid
from galley_worker.head_start import paths_in

PREFIX: Final = "GALLEY_"


class WorkerSettings(BaseModel):
    """The settings of one worker process, each from the environment variable `GALLEY_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    server: str = DEFAULT_SERVER
    """Address of NATS."""
    credentials: Path | None = None
    """Credentials file for NATS, read again for each connection; not needed if NATS does not require clients
    to authenticate."""
    tls_ca: Path | None = None
    """File with the certificates of the authorities to trust; with it the connection to NATS is always
    encrypted. Files for TLS are read again for each connection."""
    tls_certificate: Path | None = None
    """File with a certificate of our own, if NATS requires one."""
    tls_key: Path | None = None
    """File with its private key; the same file by default."""
    tls_server_name: str = ""
    """Name that the certificate of NATS must have; the host of its address by default."""
    keys: str = ""
    """Keys of the queue, where its payloads are encrypted, as `PATH` or `QUEUE=PATH`, several separated as in
    PATH: a folder with a file for each key, as a mounted Secret, or the manifest of a Secret. Changes take
    effect while the worker runs. Handlers that submit tasks use the same."""
    signing_keys: str = ""
    """Keys that sign the requests of HTTP handlers, as `SECRET=PATH`, several separated as in PATH: a folder
    with a file for each key, as a mounted Secret, or the manifest of a Secret. Changes take effect while the
    worker runs."""
    cache: Path = Field(default_factory=default_folder)
    """Folder for large inputs, files and results while handlers use them, and as long as there is room after
    that. Workers of one queue on one machine may share it, so that each object is fetched once. By default a
    folder of the user in the system's folder for temporary files."""
    cache_bytes: int = Field(DEFAULT_BYTES, ge=1024**2)
    """Bytes of objects kept in that folder for later tasks; those in use may take more."""
    objects: str = ""
    """Bucket for large inputs, results and files, as `s3://BUCKET/PREFIX`, with its `AWS_...` variables;
    in the queue's own stream by default. Producers need the same."""
    queue_manifest: Path
    """File with the TaskQueue that this worker serves, as JSON or YAML."""
    worker: str = Field(default_factory=socket.gethostname, min_length=1, pattern=r"^[A-Za-z0-9_-]+$")
    """Name of this worker, unique in its queue; by default the host name, in a pod the pod's name."""
    import_paths: str = ""
    """Folders that are searched first for the queue's modules: separated as in PATH, or a list as JSON."""
    health_port: int = Field(0, ge=0, le=65535)
    """Port of /livez, /readyz and /metrics; 0 disables them."""
    health_host: str = "0.0.0.0"  # noqa: S104 - kubelet and Prometheus come from outside the pod
    """Address that the port is bound to."""
    live_seconds: float = Field(60.0, ge=10)
    """Seconds without an answer of the broker after which a worker with a free slot is not live; an idle
    consumer sends a heartbeat every five."""
    lease_seconds: float = Field(LEASE_SECONDS, ge=1, le=300)
    """Seconds until a lease ends that is not renewed; must equal that of the queue's consumers."""
    unknown_handler_seconds: float = Field(120.0, ge=0, le=3600)
    """Seconds a task waits for a worker that knows its handler, counted from the first worker that did not:
    during a rollout newer ones join. After that it fails with HandlerNotFound; 0 fails it at once."""
    key_service_seconds: float = Field(15.0, ge=0.1, le=600)
    """Seconds after which a task is tried again that cannot be decrypted since the key service of its queue
    does not answer. Such a try counts no attempt."""
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Lowest level that is logged. When set, it applies to handlers, too, instead of
    spec.worker.logLevel."""
    termination_log: Path | None = None
    """File to which a worker that cannot start writes the reason: in a pod /dev/termination-log; the queue's
    conditions show it."""

    @property
    def tls(self) -> Tls | None:
        """How to encrypt the connection to NATS; None leaves it to the server."""
        return tls_of(
            self.server,
            {},
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            server_name=self.tls_server_name,
        )

    @property
    def handler_log_level(self) -> str | None:
        """The level for handlers; None if the queue decides."""
        return self.log_level if "log_level" in self.model_fields_set else None

    @property
    def paths(self) -> tuple[str, ...]:
        """The folders of `import_paths`."""
        return paths_in(self.import_paths)

    @field_validator("import_paths")
    @classmethod
    def _a_list(cls, value: str) -> str:
        if value.startswith("[") and not all(isinstance(path, str) for path in json.loads(value)):
            raise ValueError("must be a list of texts")
        return value


def read_settings(environment: Mapping[str, str]) -> WorkerSettings:
    """Return the settings in an environment.

    Raises:
        SettingsInvalid: naming each variable that is missing or wrong.
    """
    given = {
        name: environment[PREFIX + name.upper()]
        for name in WorkerSettings.model_fields
        if PREFIX + name.upper() in environment
    }
    try:
        return WorkerSettings.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SettingsInvalid(problems) from None


def read_queue(path: Path) -> TaskQueue:
    """Return the TaskQueue a worker serves.

    Raises:
        SettingsInvalid: if the file does not hold exactly one TaskQueue.
    """
    with suppress(OSError, ValidationError):  # of what is not as the operator writes it, all is told below
        return TaskQueue.model_validate_json(path.read_bytes(), by_alias=True, by_name=False)
    # It reads YAML and all kinds of resources, which takes long to import.
    from galley.resources.manifest import read_manifests  # noqa: PLC0415

    try:
        found = [resource for resource in read_manifests(path) if isinstance(resource, TaskQueue)]
    except ManifestInvalid as error:
        raise SettingsInvalid(f"GALLEY_QUEUE_MANIFEST: {error}") from error
    if len(found) != 1:
        raise SettingsInvalid(f"GALLEY_QUEUE_MANIFEST: {path} holds {len(found)} TaskQueues, it must be one")
    return found[0]


def payloads_of(settings: WorkerSettings, queue: TaskQueue) -> Payloads:
    """Return what encrypts and decrypts for a worker.

    Raises:
        SettingsInvalid: if its queue demands encryption, and it is given no keys.
        KeysInvalid: if the keys cannot be used.
    """
    if queue.spec.encryption is None:
        return Payloads()
    name = queue.metadata.name
    given = read_given(text for text in settings.keys.split(os.pathsep) if text)
    source = given.get(name, given.get(ALL_QUEUES))
    if source is None:
        raise SettingsInvalid(f"{PREFIX}KEYS: queue {name!r} is encrypted, and no keys are given for it")
    return payloads_with({name: source})


def signing_keys_of(settings: WorkerSettings, queue: TaskQueue) -> dict[str, Path]:
    """Return where the signing keys of the HTTP handlers of a queue are, by the name of their Secret.

    Raises:
        SettingsInvalid: if those of one are not given.
    """
    given = read_given(text for text in settings.signing_keys.split(os.pathsep) if text)
    found = {}
    for handler in queue.spec.handlers.http:
        source = given.get(handler.secret_name, given.get(ALL_QUEUES))
        if source is None:
            problem = f"no keys of Secret {handler.secret_name!r} are given, by which requests are signed"
            raise SettingsInvalid(f"{PREFIX}SIGNING_KEYS: {problem}")
        found[handler.secret_name] = source
    return found
