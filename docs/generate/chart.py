"""`charts/galley/README.md`: the values of the chart, from the comments in its values.yaml.

A comment that begins with `-- ` describes the value below it. A value without one means the same as its
neighbours, or as in Kubernetes (`nodeSelector`), and is in the table without a description.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

CHART: Final = Path(__file__).parent.parent.parent / "charts" / "galley"

_DOCUMENTED: Final = "# -- "

_HEAD: Final = """\
# galley

{description}

    helm install galley charts/galley --namespace galley-system --create-namespace

Before that, build the images and push them to a registry that the cluster pulls from:

    docker build -f operator/Dockerfile -t REGISTRY/galley-operator:{version} .
    docker build -f worker-image/Dockerfile -t REGISTRY/galley-worker:{version} .
    docker build -f gateway/Dockerfile -t REGISTRY/galley-gateway:{version} .     # with gateway.enabled
    helm install ... --set operator.image.repository=REGISTRY/galley-operator \\
      --set worker.image.repository=REGISTRY/galley-worker

`helm test galley --namespace galley-system` creates a queue, runs a task on it and removes both.

- **Pods** satisfy the *restricted* Pod Security Standard: no root, a read-only root file system, no
  capabilities.
- **Rights.** The operator gets the rights it uses in the namespaces of `operator.namespaces`: `default`,
  unless you list others. With `all` it is as powerful as a cluster administrator. Creating a TaskQueue is as
  powerful as creating pods, so the role `edit` does not include it, unless `rbac.aggregateQueuesToEdit` is
  set.
- **CRDs** are templates, so upgrading the chart upgrades them. Uninstalling keeps them (`crds.keep`).
- **Upgrades** (`helm upgrade` and `helm rollback`) lose no task. The new operator is ready before the old
  one stops. Workers of queues that name no image of their own are replaced: a busy worker finishes its
  tasks, or hands them back after `gracePeriodSeconds`. NATS restarts only if its own values or its image
  change; while a single server restarts, producers and workers wait for it.
- **NATS** is a StatefulSet of 1 or 3 servers, or one of yours (`nats.enabled: false`, `nats.url`). Its
  volumes outlive the release. Connections are encrypted, with certificates that the operator makes and
  renews, cert-manager makes or you provide (`nats.tls`). The NetworkPolicy admits the operator, workers,
  and pods with the label `galley.dev/client: "true"`; a network plugin that enforces no policies admits
  every pod.

## Values

A value that does not exist or has a wrong type is rejected (`values.schema.json`).
"""


class Value(NamedTuple):
    """One value of the chart."""

    path: str
    default: Any
    words: str


def document() -> str:
    """Return the page."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    rows = (
        f"| `{value.path}` | `{json.dumps(value.default)}` | {value.words} |"
        for value in values((CHART / "values.yaml").read_text("utf-8"))
    )
    head = _HEAD.format(description=chart["description"], version=chart["appVersion"])
    return "\n".join([head, "| value | default | meaning |", "|---|---|---|", *rows, ""])


def values(text: str) -> Iterator[Value]:
    """Yield every value of a values.yaml, in its order.

    An object is one value if it is documented as a whole or empty; otherwise its parts are.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from _values(root, text.splitlines(), "")


def _values(node: yaml.MappingNode, lines: Sequence[str], prefix: str) -> Iterator[Value]:
    for key, value in node.value:
        path, words = prefix + key.value, _words_above(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and value.value and not words:
            yield from _values(value, lines, path + ".")
        else:
            loader = yaml.SafeLoader("")
            yield Value(path, loader.construct_object(value, deep=True), words)


def _words_above(lines: Sequence[str], line: int) -> str:
    """Return the comment that ends just above a line, if it is documentation."""
    found: list[str] = []
    for above in reversed(lines[:line]):
        text = above.strip()
        if not text.startswith("#"):
            break
        found.insert(0, text.removeprefix("#").strip())
        if text.startswith(_DOCUMENTED):
            return " ".join([found[0].removeprefix("-- "), *found[1:]]).replace("|", "\\|")
    return ""
