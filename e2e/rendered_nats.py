"""A nats-server with the configuration `helm template` renders; only paths and ports are of this machine."""

import re
from pathlib import Path
from typing import Final

from e2e.rendered_chart import nats_config
from tests.support.documents import free_port
from tests.support.guarded_nats import GuardedNats

_ELSEWHERE: Final = re.compile(r"(?<![\w.\"'])/(?:etc|var|data|run|tmp)\b[^\s\"',]*")


class RenderedNats(GuardedNats):
    """The chart's NATS, with the keys the operator makes."""

    def __init__(self, folder: Path, *settings: str) -> None:
        """Start it.

        Args:
            folder: for its configuration, data and log.
            settings: values of the chart, such as `nats.maxPayload=2MB`.
        """
        self._settings = settings
        super().__init__(folder)

    def _configure(self) -> None:
        rendered = nats_config(*self._settings)
        places = {
            "/data": self.folder / "data",
            "/var/run/nats": self.folder / "run",
            "../nats-auth/auth.conf": "auth.conf",
        }
        for place, here in places.items():
            assert place in rendered, f"the chart no longer uses {place}"
            rendered = rendered.replace(place, str(here))
        rendered, listens = re.subn(r"(?m)^port: 4222$", f'listen: "127.0.0.1:{self.port}"', rendered)
        rendered, monitors = re.subn(r"(?m)^http_port: 8222$", f'http: "127.0.0.1:{free_port()}"', rendered)
        assert (listens, monitors) == (1, 1), rendered
        rendered = rendered.replace("$POD_NAME", "galley-nats-0")
        left = [found for found in _ELSEWHERE.findall(rendered) if not found.startswith(str(self.folder))]
        assert not left, f"paths of a pod that this class does not map: {left}"
        (self.folder / "run").mkdir(exist_ok=True)
        (self.folder / "nats.conf").write_text(rendered)
