import socket
import subprocess
import sys
from pathlib import Path

from tests.support.port import free_port

ROOT = Path(__file__).parent.parent.parent.parent


def test_no_port_is_given_twice() -> None:
    ours = [free_port() for _ in range(100)]
    code = "from tests.support.port import free_port; print(*(free_port() for _ in range(100)))"
    theirs = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert len({*ours, *map(int, theirs.stdout.split())}) == 200


def test_the_kernel_gives_none_of_them() -> None:
    low, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert free_port() < int(low)


def test_a_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()
