"""The `except` branches and `suppress` calls of the product that tests enter."""
