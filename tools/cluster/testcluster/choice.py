"""Chooses who provides the cluster: by name, or what this machine can do."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Final

from testcluster import kind
from testcluster.bare import BareCluster
from testcluster.cluster import Cluster
from testcluster.errors import CannotRunHere
from testcluster.existing import ExistingCluster
from testcluster.images.image import ROOT
from testcluster.progress import Say, say

VARIABLE: Final = "GALLEY_E2E_CLUSTER"


class Provider(StrEnum):
    """Who provides the cluster."""

    AUTO = "auto"
    BARE = "bare"
    KIND = "kind"
    EXISTING = "existing"


def wanted() -> Provider:
    """Return what `$GALLEY_E2E_CLUSTER` says: auto, bare, kind or existing.

    Raises:
        CannotRunHere: if it is none of them.
    """
    word = os.environ.get(VARIABLE, Provider.AUTO)
    try:
        return Provider(word)
    except ValueError:
        raise CannotRunHere(f"{VARIABLE}={word} is not known", f"one of {', '.join(Provider)}") from None


def state_folder(name: str = "default") -> Path:
    """Return the folder of a cluster of this checkout."""
    return ROOT / ".galley" / "clusters" / name


def cluster(
    provider: Provider, state: Path, *, kubeconfig: Path | None = None, outlives_us: bool = False
) -> Cluster:
    """Return a cluster by a provider; `auto` is kind where Docker runs, else bare, never an existing one.

    Raises:
        CannotRunHere: if `existing` is asked for without a kubeconfig.
    """
    if provider is Provider.AUTO:
        provider = _automatic(say)
    match provider:
        case Provider.KIND:
            return kind.KindCluster(state)
        case Provider.EXISTING:
            return ExistingCluster(_given(kubeconfig))
    return BareCluster(state, outlives_us=outlives_us)


def _given(kubeconfig: Path | None) -> Path:
    chosen = kubeconfig or Path(os.environ.get("KUBECONFIG", ""))
    if not chosen.is_file():
        raise CannotRunHere(f"there is no kubeconfig {str(chosen)!r}", "--kubeconfig FILE, or set KUBECONFIG")
    return chosen


def _automatic(say: Say) -> Provider:
    """Return kind where it can run, else bare; say so if only kind itself is missing."""
    try:
        kind.check()
    except CannotRunHere as error:
        if kind.docker_answers():
            say(f"Docker is running, but {error}; using the bare provider")
        return Provider.BARE
    return Provider.KIND
