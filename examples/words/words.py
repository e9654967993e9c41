"""A handler that needs Python alone: word statistics, from a ConfigMap."""

import re
from collections import Counter
from typing import Final

from galley import task

_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


@task(queue="words")
def statistics(text: str) -> dict[str, int | str | list[str]]:
    """Count the words of a text; `top` are the commonest ones."""
    counts = Counter(word.lower() for word in _WORD.findall(text))
    # Ties go by the alphabet: the same text gives the same result every time.
    commonest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "words": counts.total(),
        "distinct": len(counts),
        "longest": max(counts, key=lambda word: (len(word), word), default=""),
        "top": [word for word, _ in commonest[:3]],
    }
