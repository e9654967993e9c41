"""Encrypted payloads, key by key and byte by byte."""
