"""Reads the golden vectors beside it."""

from pathlib import Path


def vector(kind: str, name: str) -> bytes:
    """Return the body in `<kind>/<name>.json`."""
    return (Path(__file__).parent / kind / f"{name}.json").read_bytes()
