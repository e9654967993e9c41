"""Which URLs the queues of an installation may name as handlers. Pure."""

from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS: Final = {"https": 443, "http": 80}


def allows(rules: Collection[str], url: str) -> bool:
    """Return whether a URL may be named.

    Args:
        rules: the beginnings of URLs that are allowed, such as `https://hooks.example.com/galley/`. A host
            may begin with `*.`, for all names below it. Without any, each URL is allowed.
        url: as a queue has it, which is a valid one.
    """
    return not rules or any(_fits(urlsplit(rule), urlsplit(url)) for rule in rules)


def _fits(rule: SplitResult, url: SplitResult) -> bool:
    return (
        rule.scheme == url.scheme
        and _host_fits(rule.hostname or "", url.hostname or "")
        and _port(rule) == _port(url)
        and _path_fits(rule.path, url.path)
    )


def _host_fits(rule: str, host: str) -> bool:
    # A name may end with the dot of the root.
    host = host.rstrip(".")
    if rule.startswith("*."):
        return host.endswith(rule[1:]) and len(host) > len(rule) - 1
    return host == rule


def _port(url: SplitResult) -> int | None:
    try:
        return url.port or _PORTS.get(url.scheme)
    except ValueError:  # above 65535
        return None


def _path_fits(rule: str, path: str) -> bool:
    if rule in {"", "/"}:
        return True
    if any(part in {".", ".."} for part in unquote(path).replace("\\", "/").split("/")):
        return False
    return path == rule or path.startswith(rule if rule.endswith("/") else f"{rule}/")
