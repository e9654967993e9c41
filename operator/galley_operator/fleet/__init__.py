"""The seam between what decides how many workers there are and what starts and stops them."""
