"""A handler that needs more than Python: thumbnails by Pillow, which is in this queue's own image."""

import base64
import io
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from galley import NonRetryable, task

PICTURES: Final = Path(__file__).resolve().parent / "pictures"
LARGEST_EDGE: Final = 160


class PictureUnusable(NonRetryable):
    """A task names something that is no picture; trying again would not help."""


@task(queue="thumbnails")
def thumbnail(picture: str, edge: int = 96) -> dict[str, str | int | list[int]]:
    """Return a picture of the image, at most `edge` pixels wide and high, as a JPEG in base64.

    Raises:
        PictureUnusable: if there is no such picture, it cannot be read, or `edge` makes no sense.
    """
    if not 1 <= edge <= LARGEST_EDGE:
        raise PictureUnusable(f"edge is {edge}; it must be from 1 to {LARGEST_EDGE} pixels")
    source = (PICTURES / picture).resolve()
    if not source.is_relative_to(PICTURES) or not source.is_file():
        raise PictureUnusable(f"there is no picture {picture!r}")
    try:
        with Image.open(source) as image:
            original = image.size
            small = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise PictureUnusable(f"{picture!r} is not a picture") from None
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return {
        "source": list(original),
        "size": list(small.size),
        "bytes": file.tell(),
        "jpeg": base64.b64encode(file.getvalue()).decode(),
    }
