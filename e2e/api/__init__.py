"""Tests on a real API server alone: no pods, no controllers."""
