"""A client that uploads objects continuously, also while the server restarts. Each object contains its own digest."""

import hashlib
import random
import threading
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

PREFIX = "uploads"
PART_BYTES = 5 << 20


def make_content(generator: random.Random, size: int) -> bytes:
    """Return bytes that begin with the digest of the other bytes."""
    data = (generator.randbytes(min(size, 1 << 12)) * (size // (1 << 12) + 1))[:size]
    return hashlib.sha256(data).hexdigest().encode() + data


def is_complete(path: Path) -> bool:
    content = path.read_bytes()
    return hashlib.sha256(content[64:]).hexdigest().encode() == content[:64]


class UploadClient:
    """A client that uploads objects in a thread, from `resume` to `pause`."""

    def __init__(self, client: Any, bucket: str, seed: int) -> None:
        self.stored_digests: dict[str, str] = {}
        """The digest of the last content whose upload the server acknowledged, by key."""
        self._unacknowledged_digests: dict[str, set[str]] = {}
        """Digests of later contents by key. The server may have stored these contents without a response."""
        self._client = client
        self._bucket = bucket
        self._generator = random.Random(seed)  # noqa: S311  not for secrets
        self._pause_event = threading.Event()
        self._thread = threading.Thread()

    def resume(self) -> None:
        self._pause_event.clear()
        self._thread = threading.Thread(target=self._upload, daemon=True)
        self._thread.start()

    def pause(self) -> None:
        self._pause_event.set()
        self._thread.join()

    def _upload(self) -> None:
        while not self._pause_event.wait(0.005):
            key = f"{PREFIX}/{self._generator.randrange(40)}"
            is_large = self._generator.random() < 0.1
            body = make_content(self._generator, PART_BYTES if is_large else self._generator.randrange(1 << 17))
            self._unacknowledged_digests.setdefault(key, set()).add(body[:64].decode())
            try:
                (self._put_in_parts if is_large else self._put)(key, body)
            except (BotoCoreError, ClientError):  # after an error, the server may have stored the object or not
                time.sleep(0.05)
                continue
            self.stored_digests[key] = body[:64].decode()
            self._unacknowledged_digests[key] = set()

    def _put(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body)

    def _put_in_parts(self, key: str, body: bytes) -> None:
        location = {"Bucket": self._bucket, "Key": key}
        upload = self._client.create_multipart_upload(**location)["UploadId"]
        parts = [
            {"PartNumber": number, "ETag": self._client.upload_part(**location, UploadId=upload, **part)["ETag"]}
            for number, chunk in enumerate((body[:PART_BYTES], body[PART_BYTES:]), 1)
            for part in [{"PartNumber": number, "Body": chunk}]
        ]
        self._client.complete_multipart_upload(**location, UploadId=upload, MultipartUpload={"Parts": parts})

    def check(self, bucket: Path) -> None:
        """Check that all acknowledged objects exist, and that no object is incomplete, even after a failed upload."""
        files = {f"{PREFIX}/{path.name}": path for path in (bucket / PREFIX).glob("*")}
        assert [key for key, path in files.items() if not is_complete(path)] == []
        for key, digest in self.stored_digests.items():
            assert key in files, f"{key} was stored, but does not exist"
            current_digest = files[key].read_bytes()[:64].decode()
            assert current_digest in {digest, *self._unacknowledged_digests.get(key, ())}, f"{key} has an older content"

    def abort_all(self) -> None:
        """Abort the multipart uploads that were incomplete when the server was killed."""
        for upload in self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", []):
            location = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            self._client.abort_multipart_upload(**location)
