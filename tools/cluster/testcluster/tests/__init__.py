"""Tests of the clusters themselves; `make e2e` runs them with those of Galley."""
