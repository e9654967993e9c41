"""The `except` branches of the product that tests enter."""
