"""Tests on a real cluster: one file a promise or a disturbance."""
