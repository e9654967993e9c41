"""The handlers: map-reduce over texts, and an order that is undone if it cannot be shipped."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from galley import NonRetryable, task

TEXTS = Path(__file__).parent.parent / "folder" / "input"


@task(queue="books")
def words(name: str) -> dict[str, int]:
    """Count the words of one text."""
    found = re.findall(r"[a-zäöüß']{4,}", (TEXTS / name).read_text("utf-8").lower())
    return dict(Counter(found).most_common(200))


@task(queue="books")
def merged(counts: list[dict[str, int]], most: int = 3) -> list[str]:
    """Return the words that occur most in all texts."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return [word for word, _ in total.most_common(most)]


@task(queue="orders")
def charge(order: str, cents: int) -> dict[str, Any]:
    """Take the money."""
    return {"order": order, "cents": cents, "receipt": f"r-{order}"}


@task(queue="orders")
def ship(paid: dict[str, Any], in_stock: bool) -> dict[str, Any]:
    """Send the goods, if there are any."""
    if not in_stock:
        raise NonRetryable("out of stock")
    return {"order": paid["order"], "parcel": f"p-{paid['order']}"}


@task(queue="orders")
def close(shipped: list[dict[str, Any]], paid: dict[str, Any]) -> str:
    """Tell the customer; give the money back if the goods were not sent."""
    [outcome] = shipped
    if "error" in outcome:
        return f"order {paid['order']}: {paid['cents']} cents returned, {outcome['error']['message']}"
    return f"order {paid['order']}: sent as {outcome['parcel']}"
