"""What is in Galley's images and package, where it came from, and what linters and advisories say of it."""
