"""Handlers for a folder of pictures and texts: thumbnails, word statistics, a summary.

Paths come from tasks, so they are relative to the folder of this file and may not leave it.
Results go to `out/`; each file appears there whole or not at all, and a second run of the same
task writes the same bytes over it.
"""

import asyncio
import json
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from PIL import Image, ImageOps, UnidentifiedImageError

from galley import NonRetryable, task

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"

HERE: Final = Path(__file__).resolve().parent
THUMBNAILS: Final = "out/thumbnails"
SUMMARY: Final = "out/summary.json"
LARGEST_EDGE: Final = 1024

TELLING_LENGTH: Final = 5
"""Letters a word must have to be counted among the commonest, or they are "the" and "and" everywhere."""

WORDS_A_MINUTE: Final = 230
"""Reading speed of an adult for English prose."""

_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SENTENCE_END: Final = re.compile(r"[.!?…]+[\"'“”\u2019«»)\]]*(?=\s|$)")


class InputUnusable(NonRetryable):
    """A task names something this folder cannot work on; trying again would not help."""


@dataclass(frozen=True)
class Text:
    """What a text is made of; texts can be added up."""

    words: tuple[str, ...]
    """As written, in order."""
    sentences: int

    def __add__(self, other: "Text") -> "Text":
        return Text(self.words + other.words, self.sentences + other.sentences)

    def statistics(self) -> dict[str, JSON]:
        """Return the figures people ask about a text."""
        counts = Counter(word.lower() for word in self.words)
        telling = Counter({word: count for word, count in counts.items() if len(word) >= TELLING_LENGTH})
        return {
            "words": len(self.words),
            "distinct": len(counts),
            "sentences": self.sentences,
            "longest": max(counts, key=lambda word: (len(word), word), default=""),
            # Ties go by the alphabet: the same text gives the same result on every machine.
            "top": [word for word, _ in sorted(telling.items(), key=lambda item: (-item[1], item[0]))[:5]],
            "readingSeconds": round(len(self.words) * 60 / WORDS_A_MINUTE),
        }


@task(queue="images")
def thumbnail(path: str, edge: int = 160) -> dict[str, JSON]:
    """Write `out/thumbnails/NAME.jpg`, at most `edge` pixels wide and high.

    Raises:
        InputUnusable: if the path leaves the folder, is no file or no whole image, or `edge` makes no sense.
    """
    if not 1 <= edge <= LARGEST_EDGE:
        raise InputUnusable(f"edge is {edge}; it must be from 1 to {LARGEST_EDGE} pixels")
    source = _file(path)
    try:
        with Image.open(source) as image:
            original = image.size
            small = ImageOps.exif_transpose(image).convert("RGBA")
    except UnidentifiedImageError:
        raise InputUnusable(f"{path!r} is not an image") from None
    except OSError as error:
        raise InputUnusable(f"{path!r} is damaged: {error}") from None
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    flat = Image.new("RGB", small.size, "white")
    flat.paste(small, mask=small)
    target = HERE / THUMBNAILS / f"{source.stem}.jpg"
    with _replacing(target) as fresh:
        flat.save(fresh, "JPEG", quality=85, subsampling=0)
    return {
        "thumbnail": str(target.relative_to(HERE)),
        "source": list(original),
        "size": list(flat.size),
        "bytes": target.stat().st_size,
        "colour": _dominant_colour(flat),
    }


@task(queue="texts")
def word_statistics(path: str) -> dict[str, JSON]:
    """Count words and sentences of a UTF-8 text; `top` are the commonest words of five letters or more.

    Raises:
        InputUnusable: if the path leaves the folder, is no file, or is not UTF-8.
    """
    return _read(path).statistics()


@task(queue="texts")
async def summary(paths: list[str]) -> dict[str, JSON]:
    """Read several texts at the same time and write their statistics, added up, to `out/summary.json`.

    Raises:
        InputUnusable: if there is no path, or one leaves the folder, is no file, or is not UTF-8.
    """
    if not paths:
        raise InputUnusable("there is no text to sum up: paths is empty")
    texts = await asyncio.gather(*(asyncio.to_thread(_read, path) for path in paths))
    figures: dict[str, JSON] = {"texts": len(texts), **sum(texts, Text((), 0)).statistics()}
    await asyncio.to_thread(_write_json, HERE / SUMMARY, figures)
    return figures


def _file(path: str) -> Path:
    found = (HERE / path).resolve()
    if not found.is_relative_to(HERE):
        raise InputUnusable(f"{path!r} is outside the folder; give a path relative to {HERE.name}/")
    if not found.is_file():
        raise InputUnusable(f"there is no file {path!r} in {HERE.name}/")
    return found


def _read(path: str) -> Text:
    try:
        content = _file(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputUnusable(f"{path!r} is not a UTF-8 text (byte {error.start})") from None
    # Composed and decomposed letters are one letter: "ö" may be written either way.
    content = unicodedata.normalize("NFC", content)
    return Text(tuple(_WORD.findall(content)), len(_SENTENCE_END.findall(content)))


def _dominant_colour(image: Image.Image) -> str:
    few = image.quantize(6)
    palette, counts = few.getpalette() or [], few.histogram()
    index = max(range(6), key=lambda each: counts[each])
    return "#{:02x}{:02x}{:02x}".format(*palette[3 * index : 3 * index + 3])


def _write_json(target: Path, value: JSON) -> None:
    with _replacing(target) as fresh:
        fresh.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Lend a place beside the target; what was written there takes the target's place at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own: two attempts at one task never share a half-written file.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as folder:
        fresh = Path(folder) / target.name
        yield fresh
        fresh.replace(target)
