"""A small model: trained for several rates of learning at once, the best one kept, and then asked in batches.

It is a logistic regression in plain Python, so that the example needs nothing else. With scikit-learn or
PyTorch the handlers have the same shape: `fit` and `predict` take the places of the loops.
"""

import json
import math
import random
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from galley import Batch, File, task

_FOLDER = tempfile.mkdtemp()
ROUNDS = 60


@dataclass
class Point:
    """What is known of a point, and which of the two clouds it is of."""

    features: list[float]
    label: int


@dataclass
class Candidate:
    """A trained model, and how well it does on examples it has not seen."""

    rate: float
    accuracy: float
    model: File


@dataclass
class Query:
    """Which model is asked about what."""

    model: File
    features: list[float]


@task(queue="model")
def prepare(count: int, seed: int) -> File:
    """Write the examples to learn from into a file."""
    path = Path(_FOLDER, "examples.json")
    path.write_text(json.dumps([asdict(point) for point in points(count, seed)]))
    return File(path)


def points(count: int, seed: int) -> list[Point]:
    """Return points of two clouds that overlap a little."""
    chance = random.Random(seed)  # noqa: S311 - the same points every time
    labels = [place % 2 for place in range(count)]
    return [Point([chance.gauss(2.0 * label - 1.0), chance.gauss(1.0 - label)], label) for label in labels]


@task(queue="model", timeout=120)
def train(rate: float, examples: File) -> Candidate:
    """Train with one rate of learning; every fourth example is kept for the test."""
    rows: list[dict[str, Any]] = json.loads(examples.path().read_text())
    learn, test = [row for place, row in enumerate(rows) if place % 4], rows[::4]
    weights = [0.0] * (len(rows[0]["features"]) + 1)
    for _ in range(ROUNDS):
        for row in learn:
            error = row["label"] - probability(weights, row["features"])
            for place, value in enumerate([1.0, *row["features"]]):
                weights[place] += rate * error * value
    right = sum((probability(weights, row["features"]) > 0.5) == bool(row["label"]) for row in test)
    path = Path(_FOLDER, f"model-{rate}.json")
    path.write_text(json.dumps(weights))
    return Candidate(rate, right / len(test), File(path))


@task(queue="model")
def best(candidates: list[Candidate]) -> Candidate:
    """Choose the model that does best, the smaller rate if two do."""
    return max(candidates, key=lambda each: (each.accuracy, -each.rate))


@task(queue="model", batch=Batch(64, wait_ms=20))
def classify(queries: list[Query]) -> list[float]:
    """Return the probability of the label 1 for each; a model is read once in each process."""
    return [probability(_load(str(each.model.path()), each.model.digest), each.features) for each in queries]


@lru_cache(maxsize=4)
def _load(path: str, digest: str) -> list[float]:  # noqa: ARG001 - the digest tells one model from another
    weights: list[float] = json.loads(Path(path).read_text())
    return weights


def probability(weights: list[float], features: list[float]) -> float:
    """Return what the model says of one example."""
    total = weights[0] + sum(weight * value for weight, value in zip(weights[1:], features, strict=True))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))
