"""Tests of galley_operator.topics."""
