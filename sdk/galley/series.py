"""What a metric is, as the documents and the programs that serve it have it."""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """The types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Series(NamedTuple):
    """One metric."""

    name: str
    """As Prometheus shows it: that of a counter ends in `_total`."""
    kind: Kind
    meaning: str
    """A sentence."""
    labels: tuple[str, ...] = ()
