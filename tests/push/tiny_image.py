"""Images of a few bytes in the format of `docker save`, made without a build, for any revision and architecture."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence

import docker

from microjobs_orchestrator.images import REVISION_LABEL


def load(name: str, layers: Sequence[bytes], revision: str, architecture: str = "amd64") -> str:
    """Load an image with one file per layer into the engine, and return its ID."""
    layer_tars = [_make_tar({"content": layer}) for layer in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": {REVISION_LABEL: revision}},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer_tar).hexdigest()}" for layer_tar in layer_tars],
        },
    }
    names = [f"{number}/layer.tar" for number in range(len(layer_tars))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    files = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
    client = docker.from_env()
    try:
        (image,) = client.images.load(_make_tar({**files, **dict(zip(names, layer_tars, strict=True))}))
        return str(image.id)
    finally:
        client.close()


def _make_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
