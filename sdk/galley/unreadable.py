"""What decoding bytes from elsewhere can raise."""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""They are not of the shape that is asked for, no UTF-8, or nested too deeply, in unknown fields as well."""
