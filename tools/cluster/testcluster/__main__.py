"""The command `testcluster`: makes, inspects, disturbs and removes clusters for tests."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from testcluster import build, choice, keeper
from testcluster.bare import BareCluster
from testcluster.choice import Provider
from testcluster.cluster import Cluster, Part
from testcluster.errors import CannotRunHere, ClusterError, NotRunning
from testcluster.images import previous
from testcluster.images.build import NAMES, archives

_EXAMPLES = """\
examples:
  testcluster up                          create a one-node cluster; it runs until `testcluster down`
  testcluster up --control-plane-only     etcd and the API server only: seconds, no root
  eval "$(testcluster env)"               set KUBECONFIG and put a matching kubectl and helm on PATH
  testcluster kill etcd && testcluster start etcd
"""


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    try:
        os.umask(0o022)  # containers read some of what is written
        _obey(_parser().parse_args(words))
    except ClusterError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 0


def _obey(options: argparse.Namespace) -> None:
    match options.verb:
        case "build":
            _say(str(build.binaries()))
        case "images":
            _images(options.names or NAMES, previous_too=not options.names)
        case _:
            _act(_cluster(options), options)


def _images(names: Iterable[str], *, previous_too: bool) -> None:
    for name, archive in archives(names).items():
        _say(f"{name} {archive}")
    if previous_too:
        try:
            for archive in previous.archives():
                _say(f"{previous.VERSION} {archive}")
        except CannotRunHere as error:
            sys.stderr.write(f"release {previous.VERSION} is not built: {error}\n")


def _act(cluster: Cluster, options: argparse.Namespace) -> None:
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
        raise NotRunning("the cluster does not run", "testcluster up")
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
        help="kind (needs Docker and kind), bare (needs root, no container engine), existing (a kubeconfig); "
        "auto, the default, is kind where Docker runs, else bare",
    )
    shared.add_argument(
        "--state",
        type=Path,
        default=choice.state_folder(),
        help="folder of the cluster; each folder is a cluster of its own (default: .galley/clusters/default)",
    )
    shared.add_argument("--kubeconfig", type=Path, help="for --provider existing (default: $KUBECONFIG)")
    parser = argparse.ArgumentParser(
        prog="testcluster",
        description="Kubernetes clusters to test on, and images for them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, parents=parents)

    verb("build", "build the programs of a bare cluster; minutes the first time")
    images = verb("images", "build the images of this repository; prints the path of each archive")
    images.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES), choices=[[], *NAMES])
    up = verb("up", "create a cluster", shared)
    up.add_argument("--control-plane-only", action="store_true", help="only etcd and the API server")
    up.add_argument(
        "--audit", action="store_true", help="log requests for galley.dev resources to logs/audit.log"
    )
    up.add_argument(
        "--image", type=Path, action="append", default=[], help="an image archive to load; can be repeated"
    )
    verb("down", "remove the cluster and everything made for it", shared)
    verb("status", "show which parts run", shared)
    verb("kubeconfig", "print the path of the kubeconfig", shared)
    verb("env", "print shell commands that point kubectl and helm at the cluster", shared)
    verb("load-image", "load an image archive into the node", shared).add_argument("archive", type=Path)
    for name, text in {
        "kill": "kill a part with SIGKILL",
        "freeze": "stop a part with SIGSTOP",
        "thaw": "continue a frozen part",
        "start": "start a part that was killed",
    }.items():
        verb(name, text, shared).add_argument(
            "part", type=Part, choices=list(Part), metavar="PART", help=", ".join(Part)
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
