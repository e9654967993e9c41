"""Objects in a bucket with the S3 protocol; which tasks refer to them stands in the queue's stream."""

from collections.abc import AsyncGenerator, Mapping

from galley.backup.destination import Bucket
from galley.backup.errors import ArchiveNotFound, DestinationFailed, DestinationInvalid
from galley.broker.objects import PART, Place
from galley.objects.errors import ObjectMissing, ObjectStoreInvalid, ObjectStoreUnavailable


class BucketObjects:
    """The objects of queues in one bucket, each as `PREFIX/NAMESPACE/QUEUE/NAME`."""

    def __init__(self, place: str, environ: Mapping[str, str], *, retry_seconds: float) -> None:
        """Describe the bucket.

        Args:
            place: `s3://BUCKET/PREFIX`.
            environ: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and `AWS_ENDPOINT_URL` for
                others than Amazon's.
            retry_seconds: how long a store that refuses is asked again.

        Raises:
            ObjectStoreInvalid: if it can be none.
        """
        if not place.startswith("s3://"):
            raise ObjectStoreInvalid(place, "it is not the address of a bucket")
        self.address = place.rstrip("/")
        try:
            self._bucket = Bucket(self.address, environ, retry_seconds)
        except DestinationInvalid as error:
            raise ObjectStoreInvalid(place, str(error)) from None

    def __str__(self) -> str:
        return self.address

    async def put(self, place: Place, name: str, pieces: AsyncGenerator[bytes, None]) -> None:
        """Store an object, all of it or nothing. Doing it again is safe.

        Raises:
            ObjectStoreUnavailable: if the store does not take it.
        """
        try:
            await self._bucket.write(_key(place, name), pieces)
        except DestinationFailed as error:
            raise self._unavailable("store an object", error) from error

    async def get(self, place: Place, name: str, size: int, what: str) -> AsyncGenerator[bytes, None]:
        """Yield an object in parts of `PART` bytes, the last one shorter.

        Raises:
            ObjectMissing: if it is not there, or shorter.
            ObjectStoreUnavailable: if the store does not answer.
        """
        waiting, left = bytearray(), size
        try:
            async for piece in self._bucket.read(_key(place, name)):
                waiting += piece
                while len(waiting) >= PART:
                    left -= PART
                    yield bytes(waiting[:PART])
                    del waiting[:PART]
        except ArchiveNotFound:
            raise ObjectMissing(what, self.address) from None
        except DestinationFailed as error:
            raise self._unavailable("return an object", error) from error
        if waiting:
            yield bytes(waiting)

    async def remove(self, place: Place, name: str) -> None:
        """Delete an object, if it is there.

        Raises:
            ObjectStoreUnavailable: if the store does not answer.
        """
        try:
            await self._bucket.remove(_key(place, name))
        except DestinationFailed as error:
            raise self._unavailable("delete an object", error) from error

    def _unavailable(self, action: str, error: DestinationFailed) -> ObjectStoreUnavailable:
        return ObjectStoreUnavailable(self.address, action, error.problem, error.hint)


def _key(place: Place, name: str) -> str:
    return f"{place.namespace}/{place.queue}/{name}"
