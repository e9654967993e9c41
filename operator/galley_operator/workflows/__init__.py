"""Workflows: what each object declares is submitted once, and its status follows."""
