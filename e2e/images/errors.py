"""What can go wrong while images are built."""

from e2e.cluster.errors import ClusterError


class ImageNotBuilt(ClusterError):
    """A step of building an image failed; the message ends with what the program said."""
