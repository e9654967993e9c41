"""`charts/galley/README.md`: the values of the chart, from the comments in its values.yaml.

A comment that begins with `-- ` belongs to the value below it. A value without one has its neighbours'
meaning or Kubernetes' own (`nodeSelector`), and stands in the table without words.
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

`helm test galley --namespace galley-system` makes a queue, has a task run on it and takes both away.
Before that, build the two images and put them where the cluster finds them:

    docker build -f operator/Dockerfile -t REGISTRY/galley-operator:{version} .
    docker build -f worker-image/Dockerfile -t REGISTRY/galley-worker:{version} .
    helm install ... --set operator.image.repository=REGISTRY/galley-operator \\
      --set worker.image.repository=REGISTRY/galley-worker

- **Pods.** All of them fit the *restricted* profile of pod security: no root, no writable root file
  system, no capabilities.
- **Rights.** The operator gets what it uses, everywhere or in the namespaces of `operator.namespaces`
  alone. To create a TaskQueue is to create pods, so the role `edit` does not include it unless
  `rbac.aggregateQueuesToEdit` says so.
- **CRDs** are templates, so that an upgrade of the chart upgrades them; they stay when the release goes
  (`crds.keep`).
- **Upgrades** (`helm upgrade`, and `helm rollback`) lose no task. The new operator stands by before the old
  one goes. Workers of queues that name no image of their own are replaced: who is busy finishes what it runs,
  or hands it back after its `gracePeriodSeconds`. NATS goes on running unless its own values or its image
  change; while a single server starts anew, producers and workers wait for it.
- **NATS** is a StatefulSet of 1 or 3 servers, or yours (`nats.enabled: false`, `nats.url`). Its volumes
  outlive the release. Who reaches it may use it: the NetworkPolicy lets in operator, workers, and pods with
  the label `galley.dev/client: "true"`; a cluster whose network plugin enforces no policies lets in
  everybody.

## Values

A value that does not exist, or has a wrong type, is refused (`values.schema.json`).
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
