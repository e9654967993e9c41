"""Large inputs, large results and files: stored as objects, so that tasks stay small."""
