"""Admits Task objects to the broker, and cancels the tasks of deleted ones."""
