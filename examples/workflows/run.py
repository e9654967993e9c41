"""Runs two workflows on a `galley dev` of its own and prints what came of them: `python run.py`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from steps import TEXTS, charge, close, merged, ship, words

from galley import Client, Graph, chord, group

HERE = Path(__file__).parent
WITHIN = 60.0
"""Seconds that each wait may take."""


def most_frequent(client: Client) -> str:
    """Count the words of each text beside the others, then merge the counts."""
    texts = sorted(path.name for path in TEXTS.glob("*.txt"))
    workflow = client.submit(chord(words.map(texts), merged))
    found = workflow.result(WITHIN)
    return f"{', '.join(found)} ({workflow.status().progress} steps)"


def order(client: Client, name: str, *, in_stock: bool) -> str:
    """Charge, ship, close: a shipment that fails is handed to the last step, which returns the money."""
    graph = Graph()
    paid = graph.add("charge", charge.call(order=name, cents=1250))
    shipped = graph.add("ship", group(ship.step(paid=paid, in_stock=in_stock), collect=True))
    graph.add("close", close.step(shipped=shipped, paid=paid))
    workflow = client.submit(graph, task_id=name)
    # With an id of its own the order can be submitted again, and is one.
    if not client.submit(graph, task_id=name).existed:
        raise RuntimeError(f"{name} was submitted twice")
    return str(workflow.result(WITHIN)["close"])


def program(name: str) -> str:
    """Return the path of a program that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def galley_dev() -> Iterator[None]:
    """Run `galley dev` for as long as the block."""
    process = subprocess.Popen(
        [program("galley"), "dev", "steps.py", "--fresh"], cwd=HERE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
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
    """Run all of them."""
    os.chdir(HERE)
    with galley_dev(), Client() as client:
        print("most frequent:", most_frequent(client), flush=True)
        print(order(client, "order-1", in_stock=True), flush=True)
        print(order(client, "order-2", in_stock=False), flush=True)


if __name__ == "__main__":
    main()
