"""Figures of the gateway."""

import io
import logging
from typing import Any

import pytest

from galley.logs import JsonLines
from galley_gateway.metrics import GatewayMetrics


def test_each_exception_in_the_log_is_counted_by_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: Any = JsonLines(io.BytesIO(), {})
    monkeypatch.setattr(logging.root, "handlers", [lines])
    for where in ("uvicorn.error", "uvicorn.error", "galley_gateway.api.events"):
        error = RuntimeError("raised by a test")
        logging.getLogger(where).error("stream failed", exc_info=error)
    page = GatewayMetrics().page()
    assert b'galley_gateway_unexpected_errors_total{where="uvicorn.error"} 2.0' in page
    assert b'galley_gateway_unexpected_errors_total{where="galley_gateway.api.events"} 1.0' in page
