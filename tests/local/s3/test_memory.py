"""Test that large objects are never completely in the server's memory."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SIZE_BYTES = 120 << 20
MAX_GROWTH_BYTES = 40 << 20
"""Maximum growth of the server's peak memory in bytes. The threads' blocks and botocore's model need memory."""

# The server and the client are separate processes, so that only the server is measured. `getrusage` is not used: its
# peak begins with the peak of the parent process.
SERVER = """
import re, sys, threading
from pathlib import Path
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3.store import ObjectStore
from tests.local.s3.conftest import S3Server, S3

home = Home(Path(sys.argv[1]))
home.create()
store = ObjectStore(home)
store.create_bucket("a-bucket")
s3_server = S3Server()
s3_server.services = {"s3": S3(store, "us-east-1")}
threading.Thread(target=s3_server.server.serve).start()
print(s3_server.url, flush=True)
for _ in sys.stdin:
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024, flush=True)
s3_server.server.stop()
store.close()
"""

CLIENT = """
import sys, boto3
from boto3.s3.transfer import TransferConfig
s3 = boto3.client("s3", "us-east-1", endpoint_url=sys.argv[1], aws_access_key_id="a", aws_secret_access_key="b")
file, single = sys.argv[2], TransferConfig(multipart_threshold=1 << 40)
s3.upload_file(file, "a-bucket", "single", Config=single)
s3.upload_file(file, "a-bucket", "parts")
s3.copy_object(Bucket="a-bucket", Key="copy", CopySource="a-bucket/single")
s3.download_file("a-bucket", "copy", file + ".single", Config=single)
s3.download_file("a-bucket", "parts", file + ".parts")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_large_objects_do_not_fill_the_servers_memory(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as large:
        large.truncate(SIZE_BYTES)
    command = [sys.executable, "-c", SERVER, str(tmp_path / "home")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        initial_peak = _read_peak_bytes(server)
        try:
            subprocess.run([sys.executable, "-c", CLIENT, url, str(file)], check=True)
            assert _read_peak_bytes(server) - initial_peak < MAX_GROWTH_BYTES
        finally:
            server.stdin.close()
    assert all((tmp_path / f"large.{name}").stat().st_size == SIZE_BYTES for name in ("single", "parts"))


def _read_peak_bytes(server: "subprocess.Popen[str]") -> int:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write("\n")
    return int(server.stdout.readline())
