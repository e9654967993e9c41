r"""Showing text of others: what cannot be seen, or changes how the rest is seen, is spelled out.

These are control characters, of which terminals make commands; characters that turn the direction of what
follows; and those without a shape, by which two names can look the same, or a text carry words that no
reader sees. A joiner or a selector between characters that need it (of an emoji, of Persian) is left alone.
"""

import re
from typing import Final

_NEEDS_JOINER: Final = "[^\x00-\x7f\u00ad\u200b-\u200f\u2060-\u206f\ufe00-\ufe0f\ufeff]"
_SELECTED: Final = "[\ufe00-\ufe0f]"

_COMMANDS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    f"|(?<!{_NEEDS_JOINER})(?<!{_NEEDS_JOINER}{_SELECTED})[\u200c\u200d]"
    f"|[\u200c\u200d](?!{_NEEDS_JOINER})"
    f"|(?<![^\x00-\x22\x24-\x29\x2b-\x2f\x3a-\x7f\ufe00-\ufe0f]){_SELECTED}|(?<=[#*0-9]){_SELECTED}(?!\u20e3)"
)
"""One such character. Tabs and line feeds are none."""


def safe(text: str) -> str:
    r"""Return a text in which each such character is an escape, such as `\x1b` or `\u200b`."""
    if text.isascii():
        return text if text.isprintable() else _COMMANDS.sub(_escape, text)
    return UNSEEN.sub(_escape, text)


def safe_json(text: str) -> str:
    """Return JSON that means the same, in which each such character is an escape."""
    return UNSEEN.sub(_json_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
