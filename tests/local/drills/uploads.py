"""A client that uploads all the time, to a server that goes and comes back. Objects say whether they are whole."""

import hashlib
import random
import threading
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

PREFIX = "uploads"
PART = 5 << 20


def content(generator: random.Random, size: int) -> bytes:
    """Bytes that begin with the digest of the rest."""
    rest = generator.randbytes(min(size, 1 << 12)) * (size // (1 << 12) + 1)
    return hashlib.sha256(rest[:size]).hexdigest().encode() + rest[:size]


def is_whole(path: Path) -> bool:
    found = path.read_bytes()
    return hashlib.sha256(found[64:]).hexdigest().encode() == found[:64]


class Uploads:
    """Uploads from a thread until `pause`; `stored` has what the server has said that it stored."""

    def __init__(self, client: Any, bucket: str, seed: int) -> None:
        self.stored: dict[str, str] = {}
        """Digests of the last acknowledged content by key."""
        self._unsure: dict[str, set[str]] = {}
        self._client = client
        self._bucket = bucket
        self._generator = random.Random(seed)  # noqa: S311  not for secrets
        self._paused = threading.Event()
        self._thread = threading.Thread()

    def go_on(self) -> None:
        self._paused.clear()
        self._thread = threading.Thread(target=self._upload, daemon=True)
        self._thread.start()

    def pause(self) -> None:
        self._paused.set()
        self._thread.join()

    def _upload(self) -> None:
        while not self._paused.wait(0.005):
            key = f"{PREFIX}/{self._generator.randrange(40)}"
            is_large = self._generator.random() < 0.1
            body = content(self._generator, PART if is_large else self._generator.randrange(1 << 17))
            self._unsure.setdefault(key, set()).add(body[:64].decode())
            try:
                (self._in_parts if is_large else self._at_once)(key, body)
            except (BotoCoreError, ClientError):  # what became of it is not known
                time.sleep(0.05)
                continue
            self.stored[key] = body[:64].decode()
            self._unsure[key] = set()

    def _at_once(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body)

    def _in_parts(self, key: str, body: bytes) -> None:
        where = {"Bucket": self._bucket, "Key": key}
        upload = self._client.create_multipart_upload(**where)["UploadId"]
        parts = [
            {"PartNumber": number, "ETag": self._client.upload_part(**where, UploadId=upload, **part)["ETag"]}
            for number, chunk in enumerate((body[:PART], body[PART:]), 1)
            for part in [{"PartNumber": number, "Body": chunk}]
        ]
        self._client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})

    def check(self, bucket: Path) -> None:
        """Everything that was stored is there, and all that is there is whole, whatever was under way."""
        found = {f"{PREFIX}/{path.name}": path for path in (bucket / PREFIX).glob("*")}
        assert [key for key, path in found.items() if not is_whole(path)] == []
        for key, digest in self.stored.items():
            assert key in found, f"{key} was stored and is gone"
            there = found[key].read_bytes()[:64].decode()
            assert there in {digest, *self._unsure.get(key, ())}, f"{key} has an older content"

    def abort_all(self) -> None:
        """End the uploads that a killed server has not seen the end of."""
        for upload in self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", []):
            where = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            self._client.abort_multipart_upload(**where)
