"""Clusters for tests, by hand: `python -m e2e.cluster up`, and `--help` for the rest."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster import choice, keeper
from e2e.cluster.bare import BareCluster
from e2e.cluster.choice import Provider
from e2e.cluster.cluster import Cluster, Part
from e2e.cluster.errors import ClusterError, NotRunning

_EXAMPLES = """\
examples:
  python -m e2e.cluster up                          a whole cluster of one node; it stays until `down`
  python -m e2e.cluster up --control-plane-only     etcd and the API server alone, in seconds, without root
  eval "$(python -m e2e.cluster env)"               kubectl and helm of the same build on PATH, KUBECONFIG set
  python -m e2e.cluster kill etcd && python -m e2e.cluster start etcd
"""


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    try:
        _obey(_parser().parse_args(words))
    except ClusterError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was begun was removed\n")
        return 130
    return 0


def _obey(options: argparse.Namespace) -> None:
    cluster = _cluster(options)
    match options.verb:
        case "up":
            cluster.up()
            for archive in options.image:
                cluster.load_image(archive)
        case "down":
            cluster.down()
        case "status":
            _status(cluster, options.state)
        case "kubeconfig":
            _say(str(_of_running(cluster).kubeconfig))
        case "env":
            folder = _of_running(cluster).tool("kubectl").parent
            for name, value in cluster.environment.items():
                _say(f"export {name}={shlex.quote(value)}")
            _say(f"export PATH={shlex.quote(str(folder))}:$PATH")
        case "load-image":
            cluster.load_image(options.archive)
        case "kill" | "freeze" | "thaw" | "start":
            getattr(cluster, options.verb)(options.part)


def _cluster(options: argparse.Namespace) -> Cluster:
    if options.verb == "up" and (options.control_plane_only or options.audit):
        return BareCluster(
            options.state,
            control_plane_only=options.control_plane_only,
            audit=options.audit,
            outlives_us=True,
        )
    return choice.cluster(options.provider, options.state, kubeconfig=options.kubeconfig, outlives_us=True)


def _of_running(cluster: Cluster) -> Cluster:
    if not cluster.kubeconfig.exists():
        raise NotRunning("the cluster does not run", "python -m e2e.cluster up")
    return cluster


def _status(cluster: Cluster, state: Path) -> None:
    """Print the parts, or whether there is a cluster at all, and which others run on this machine."""
    if isinstance(cluster, BareCluster) and cluster.running:
        for part, seen in cluster.status().items():
            doing = "frozen" if seen["frozen"] else "runs" if seen["pid"] else "does not run"
            ends = f", ended before with {', '.join(map(str, seen['ends']))}" if seen["ends"] else ""
            _say(f"{part:<24} {doing}{ends}")
        _say(f"\nKUBECONFIG={cluster.kubeconfig}\nlogs: {cluster.logs}")
    elif isinstance(cluster, BareCluster) and cluster.logs.exists():
        _say(f"ended by itself; see {cluster.logs}")
    else:
        _say("up" if cluster.kubeconfig.exists() else "down")
    for _, other in keeper.keepers():
        if other != state.resolve():
            _say(f"another one runs: --state {other}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--provider",
        type=Provider,
        choices=list(Provider),
        default=choice.wanted(),
        help="bare (root, no container engine), kind (Docker) or existing; default: auto",
    )
    shared.add_argument(
        "--state",
        type=Path,
        default=choice.state_folder(),
        help="the cluster's folder; another folder is another cluster (default: .galley/clusters/default)",
    )
    shared.add_argument("--kubeconfig", type=Path, help="for --provider existing; default $KUBECONFIG")
    parser = argparse.ArgumentParser(
        prog="python -m e2e.cluster",
        description="Clusters for tests.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, parents=[shared])

    up = verb("up", "make it; the programs are built first, once")
    up.add_argument("--control-plane-only", action="store_true", help="etcd and the API server")
    up.add_argument("--audit", action="store_true", help="note requests about galley.dev in logs/audit.log")
    up.add_argument(
        "--image", type=Path, action="append", default=[], help="an archive to load; may be repeated"
    )
    verb("down", "take it away with all that was made for it")
    verb("status", "tell what runs")
    verb("kubeconfig", "print where its kubeconfig is")
    verb("env", "print shell lines that make kubectl and helm use it")
    verb("load-image", "give its node an image").add_argument("archive", type=Path)
    for name, text in {
        "kill": "end a part with SIGKILL",
        "freeze": "stop a part in its tracks",
        "thaw": "let a frozen part go on",
        "start": "start a part that was killed",
    }.items():
        verb(name, text).add_argument(
            "part", type=Part, choices=list(Part), metavar="PART", help=", ".join(Part)
        )
    return parser


if __name__ == "__main__":
    os.umask(0o022)  # containers read some of what is written
    sys.exit(main())
