"""Login of people at an OpenID provider."""
