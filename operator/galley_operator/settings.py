"""What the operator is told at its start, all through its environment."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError, model_validator

from galley.bounds import NAME_PATTERN
from galley.broker.connection import DEFAULT_SERVER
from galley.resources.meta import IMAGE_PATTERN
from galley.resources.pod_resources import PodResources
from galley.tls import Tls, tls_of
from galley_operator.budget import Budget
from galley_operator.errors import OperatorSettingsInvalid
from galley_operator.quota import Quotas

PREFIX: Final = "GALLEY_OPERATOR_"


class OperatorSettings(BaseModel):
    """The settings of one operator process, each the variable `GALLEY_OPERATOR_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    server: str = DEFAULT_SERVER
    """Address of NATS, for the operator itself."""
    worker_server: str = ""
    """Address of NATS as workers reach it; the operator's own when left out."""
    auth_secret: str = ""
    """Name of the Secret, in the operator's namespace, with the key that signs credentials for NATS. When
    left out, NATS is expected to require no credentials."""
    make_keys: bool = False
    """Whether to make that Secret if it is missing: with the keys of a NATS of our own, which reads them."""
    server_secret: str = ""
    """Name of the Secret, in the operator's namespace, with what the servers of a NATS of our own need: their
    certificate and the password of their routes. The operator makes and renews it."""
    server_hosts: str = ""
    """Names and addresses for that certificate, separated by commas."""
    server_tls: bool = False
    """Whether that NATS encrypts connections; then all clients must."""
    certificate_secret: str = ""
    """Name of a Secret, in the operator's namespace, with a certificate for that NATS that others make and
    renew (`tls.crt`, `tls.key`, `ca.crt`); the operator makes one when left out."""
    certificate_seconds: float = Field(90 * 86_400, ge=60)
    """Life of a certificate that the operator makes; it is renewed when a third of it is left."""
    overlap_seconds: float = Field(7 * 86_400, ge=1)
    """Time between the steps of replacing the authority: clients must fetch what to trust within it."""
    certificate_look_seconds: float = Field(30.0, ge=0.1, le=600)
    """Seconds between two looks at certificates, and at what each server has loaded."""
    store_secret: str = ""
    """Name of the Secret, in the operator's namespace, with the keys that encrypt that NATS's streams."""
    store_key: int = Field(0, ge=0)
    """Number of the key in use; a higher number makes a new key. 0 if streams are not encrypted."""
    tls_ca: Path | None = None
    """File with the certificates of the authorities to trust, for a NATS of others; those of the system when
    left out. Clients get a copy of this file and of the next two."""
    tls_certificate: Path | None = None
    """File with a certificate of our own, if that NATS requires one."""
    tls_key: Path | None = None
    """File with its private key; the same file when left out."""
    tls_server_name: str = ""
    """Name that the certificate of NATS must have; the host of its address when left out."""
    backup_secret: str = ""
    """Name of the Secret, in the operator's namespace, for the credentials of `galley backup`. When left out,
    none are made."""
    gateway_secret: str = ""
    """Name of the Secret, in the operator's namespace, for the credentials of the gateway. When left out,
    none are made."""
    namespaces: str = ""
    """Namespaces whose queues and tasks are served, separated by commas; all of the cluster's when left
    out, which needs rights everywhere."""
    own_namespace: str = ""
    """Namespace Galley is installed in. Its queues are not served unless `namespaces` lists it: workers can
    mount Secrets of their namespace, and the keys of all queues are there."""
    install: str = Field("default", pattern=NAME_PATTERN, max_length=63)
    """Name of this installation. Two on one NATS must differ, and then refuse each other's streams."""
    worker_image: str = Field("galley-worker:latest", pattern=IMAGE_PATTERN)
    """Image of workers whose queue names none."""
    worker_resources: Json[PodResources] = Field("{}", validate_default=True)
    """JSON with the requests and limits of workers, each used where a queue does not set it."""
    users_recorded: bool = False
    """Whether the API server writes who changed a TaskQueue or Task into its annotation
    `galley.dev/changed-by`; otherwise anyone could have written it, and it is not read."""
    quotas: Json[Quotas] = Field("{}", validate_default=True)
    """JSON with what queues and namespaces may set aside on NATS; nothing is limited when left out."""
    budget: Json[Budget] = Field("{}", validate_default=True)
    """JSON with what the workers of all queues, and of single namespaces, may request together; nothing is
    limited when left out."""
    allow_init_containers: bool = False
    """Whether queues may have init containers, which run before their workers."""
    allowed_handler_urls: Json[tuple[str, ...]] = Field("[]", validate_default=True)
    """JSON list of the beginnings of URLs that queues may name as HTTP handlers; any if empty. A host may
    begin with `*.`, for all names below it."""
    kubeconfig: Path | None = None
    """File that says how to reach the cluster; the pod's own ServiceAccount when left out."""
    pod_name: str = Field(default_factory=socket.gethostname, min_length=1)
    """Name of this replica, which no other has; the host's (so the pod's) by default."""
    lease_name: str = Field("galley-operator", pattern=NAME_PATTERN, max_length=63)
    """Name of the Lease by which one of the replicas leads."""
    lease_namespace: str = ""
    """Namespace of that Lease; the operator's own when left out."""
    lease_seconds: float = Field(15.0, ge=3, le=120)
    """Seconds after which another replica leads if the leader is gone without a word."""
    renew_seconds: float = Field(10.0, ge=2, le=100)
    """Seconds for which the leader tries to renew before it ends; less than the others wait."""
    retry_seconds: float = Field(2.0, ge=0.2, le=20)
    """Seconds between two tries to get or to renew the Lease."""
    orphan_seconds: int = Field(86_400, ge=60, le=2_592_000)
    """Seconds for which the streams of a deleted queue are kept, so that one made again under its name
    takes back its tasks."""
    task_ttl_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds after which a Task that succeeded or was cancelled is deleted, unless it says when; left out,
    it never is."""
    failed_task_ttl_seconds: Annotated[int, Field(ge=0)] | None = None
    """The same for Tasks that failed."""
    sweep_seconds: float = Field(60.0, ge=1, le=600)
    """Seconds between two reconciles of all queues and their objects, which restore what was edited or
    deleted even if no watch reported it; of a queue at rest, every fifth time."""
    stream_replicas: int = Field(1, ge=1, le=5)
    """Copies NATS keeps of each stream that is made new: 3 on a NATS of three servers."""
    broker_storage_bytes: int | None = Field(None, ge=1)
    """Disk of all servers of NATS together that streams may take, for the metric of it, where NATS tells no
    limit of our account; left out, that metric is absent."""
    health_port: int = Field(8080, ge=0, le=65535)
    """Port of /livez, /readyz and /metrics; 0 serves none."""
    health_host: str = "0.0.0.0"  # noqa: S104 - kubelet and Prometheus come from outside the pod
    """Address that port is bound to."""
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Least level that is logged."""

    @model_validator(mode="after")
    def _gives_up_before_others_begin(self) -> "OperatorSettings":
        if not self.retry_seconds < self.renew_seconds < self.lease_seconds:
            raise ValueError(
                "retry_seconds, renew_seconds and lease_seconds must grow in this order: "
                f"they are {self.retry_seconds:g}, {self.renew_seconds:g} and {self.lease_seconds:g}"
            )
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names and addresses of `server_hosts`."""
        return _listed(self.server_hosts)

    @property
    def tls(self) -> Tls | None:
        """How to encrypt connections to a NATS of others; None leaves it to that NATS."""
        return tls_of(
            self.server,
            {},
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            server_name=self.tls_server_name,
        )

    @property
    def served_namespaces(self) -> tuple[str, ...]:
        """The namespaces of `namespaces`; empty for all."""
        return _listed(self.namespaces)

    @property
    def reserved_namespace(self) -> str:
        """The namespace whose queues are refused; empty if there is none."""
        return "" if self.own_namespace in self.served_namespaces else self.own_namespace

    @property
    def scopes(self) -> tuple[str | None, ...]:
        """What to list and watch: each namespace, or None for all of them at once."""
        return self.served_namespaces or (None,)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def read_settings(environment: Mapping[str, str]) -> OperatorSettings:
    """Return the settings in an environment.

    Raises:
        OperatorSettingsInvalid: naming each variable that is wrong.
    """
    given = {
        name: environment[PREFIX + name.upper()]
        for name in OperatorSettings.model_fields
        if environment.get(PREFIX + name.upper())
    }
    try:
        return OperatorSettings.model_validate(given)
    except ValidationError as error:
        raise OperatorSettingsInvalid("; ".join(_words(problem) for problem in error.errors())) from None


def _words(problem: object) -> str:
    assert isinstance(problem, dict)
    place = "_".join(map(str, problem["loc"])).upper()
    return f"{PREFIX}{place}: {problem['msg']}" if place else str(problem["msg"])
