"""What the gateway is told at its start, all through its environment.

How it reaches NATS is said as for any client: `GALLEY_SERVER`, `GALLEY_CREDENTIALS`, `GALLEY_TLS_CA`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from galley_gateway.errors import GatewaySettingsInvalid
from galley_gateway.limits import Limits

PREFIX: Final = "GALLEY_GATEWAY_"


class GatewaySettings(BaseModel):
    """The settings of one gateway process, each the variable `GALLEY_GATEWAY_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    namespaces: str = ""
    """Namespaces that the dashboard offers to those who may see them, separated by commas. When left out,
    all that have queues. A user with rights in another namespace can use it as well."""
    hosts: str = ""
    """Names under which the gateway is reached, separated by commas; requests for others are refused. When
    left out, any: it relies on tokens alone."""
    audiences: str = ""
    """Audiences of which a token has to be for one, separated by commas; the API server's own when left
    out."""
    host: str = "0.0.0.0"  # noqa: S104 - requests come from outside the pod
    """Address the port is bound to."""
    port: int = Field(8080, ge=1, le=65535)
    """Port of the API and the dashboard."""
    health_port: int = Field(8081, ge=0, le=65535)
    """Port of /livez, /readyz and /metrics; 0 serves none."""
    body_bytes: int = Field(1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    """Bytes a request may have."""
    body_seconds: float = Field(10.0, gt=0, le=600)
    """Seconds for the head of a request to arrive, and then for its body."""
    rate: float = Field(5000.0, gt=0)
    """Requests a second of one user; twice as many in the first second."""
    waits: int = Field(2000, ge=1)
    """Requests that wait for tasks or follow something at once, of all users. Each open page is one."""
    waits_of_user: int = Field(1000, ge=1)
    """The same, of one user."""
    connections: int = Field(4000, ge=1)
    """Connections at once."""
    kubeconfig: Path | None = None
    """File that says how to reach the cluster; the pod's own ServiceAccount when left out."""
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Least level that is logged."""

    @property
    def limits(self) -> Limits:
        """The limits of requests."""
        return Limits(
            self.body_bytes, self.body_seconds, self.rate, self.waits, self.waits_of_user, self.connections
        )


def listed(text: str) -> tuple[str, ...]:
    """Return the entries of a list that is separated by commas."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def read_settings(environment: Mapping[str, str]) -> GatewaySettings:
    """Return the settings in an environment.

    Raises:
        GatewaySettingsInvalid: naming each variable that is wrong.
    """
    given = {
        name: environment[PREFIX + name.upper()]
        for name in GatewaySettings.model_fields
        if environment.get(PREFIX + name.upper())
    }
    try:
        return GatewaySettings.model_validate(given)
    except ValidationError as error:
        wrong = [f"{PREFIX}{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()]
        raise GatewaySettingsInvalid("; ".join(wrong)) from None
