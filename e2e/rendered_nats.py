"""A nats-server with the configuration `helm template` renders; only paths and ports are of this machine."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from e2e.rendered_chart import nats_config
from tests.support.guarded_nats import GuardedNats
from tests.support.port import free_port

_ELSEWHERE: Final = re.compile(r"(?<![\w.\"'])/(?:etc|var|data|run|tmp)\b[^\s\"',]*")


def on_this_machine(rendered: str, folder: Path, places: Mapping[str, Path], ports: Mapping[str, int]) -> str:
    """Return a rendered configuration that a server can run with here.

    Args:
        rendered: as the chart renders it.
        folder: all of the server's own.
        places: paths in its pod and what stands for them here, beside its data.
        ports: by the number the chart gives them.
    """
    for place, here in {"/data": folder / "data", "/var/run/nats": folder / "run", **places}.items():
        assert place in rendered, f"the chart no longer uses {place}"
        rendered = rendered.replace(place, str(here))
    for number, port in ports.items():
        rendered, found = re.subn(rf"(?m)^( *)port: {number}$", rf'\1listen: "127.0.0.1:{port}"', rendered)
        assert found == 1, f"the chart no longer uses port {number}"
    rendered, found = re.subn(r"(?m)^http: 127.0.0.1:8222$", f"http: 127.0.0.1:{free_port()}", rendered)
    assert found == 1, "the chart no longer binds the monitoring port to the pod"
    mapped = (str(folder), *(str(place) for place in places.values()))
    left = [found for found in _ELSEWHERE.findall(rendered) if not found.startswith(mapped)]
    assert not left, f"paths of a pod that are not mapped: {left}"
    (folder / "run").mkdir(exist_ok=True)
    return rendered


class RenderedNats(GuardedNats):
    """The chart's NATS, with the keys the operator makes, and without TLS, which other tests try."""

    def __init__(self, folder: Path, *settings: str) -> None:
        """Start it.

        Args:
            folder: for its configuration, data and log.
            settings: values of the chart, such as `nats.maxPayload=2MB`.
        """
        self._settings = settings
        super().__init__(folder)

    def _configure(self) -> None:
        rendered = nats_config("nats.tls.enabled=false", *self._settings)
        places = {"../nats-auth/auth.conf": Path("auth.conf")}
        rendered = on_this_machine(rendered, self.folder, places, {"4222": self.port})
        # A path in an include counts from the file it is in, even an absolute one.
        rendered = rendered.replace(f"include {self.folder / 'auth.conf'}", "include auth.conf")
        (self.folder / "nats.conf").write_text(rendered.replace("$POD_NAME", "galley-nats-0"))
