"""Trains, chooses and asks a model on a `galley dev` of its own: `python ask.py`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Final

from clouds import Candidate, Query, best, classify, points, prepare, train

from galley import Client, chain, group

HERE: Final = Path(__file__).parent
WITHIN: Final = 120.0
RATES: Final = (0.0001, 0.01, 0.1)


def trained(client: Client) -> Candidate:
    """Train one model for each rate, beside each other, and return the best."""
    each = group([train.step(rate=rate) for rate in RATES])
    found = client.submit(chain(prepare.call(400, seed=1), each, best.step())).result(WITHIN)
    if not isinstance(found, Candidate):
        raise TypeError(f"not a candidate: {found}")
    return found


@contextmanager
def galley_dev() -> Iterator[None]:
    """Run `galley dev` for as long as the block."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("galley")), "dev", "clouds.py", "--fresh"], cwd=HERE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "serving" in line:
                break
        else:
            raise RuntimeError(f"galley dev ended: {said}")
        Thread(target=process.stdout.read, daemon=True).start()
        yield
    finally:
        process.terminate()
        process.wait(WITHIN)


def main() -> None:
    """Train, then ask."""
    os.chdir(HERE)
    with galley_dev(), Client() as client:
        found = trained(client)
        print(f"trained {len(RATES)} models, the best with rate {found.rate}: {found.accuracy:.0%} right")
        asked = points(200, seed=2)
        handles = client.submit_many(classify.call(Query(found.model, each.features)) for each in asked)
        answers = [handle.result(WITHIN) for handle in handles]
        right = sum((answer > 0.5) == bool(each.label) for answer, each in zip(answers, asked, strict=True))
        print(f"{right} of {len(asked)} new points are right", flush=True)


if __name__ == "__main__":
    main()
