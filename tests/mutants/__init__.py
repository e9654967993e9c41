"""Small mistakes in the real code, each of which a named test has to find."""
