"""The server's folder, `.microjobs`: everything that a server keeps is in it, and nothing is elsewhere."""

import json
import os
import secrets
import string
from dataclasses import asdict, dataclass
from pathlib import Path

from microjobs.files import whole

HOME = "MICROJOBS_HOME"

ACCOUNT = "000000000000"
REGION = "us-east-1"
ROLE = "microjobs"


@dataclass(frozen=True)
class Credentials:
    """What requests must be signed with: made for this folder, good for nothing else."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class Home:
    """Paths below the server's folder."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        return cls(Path(os.environ.get(HOME) or ".microjobs").absolute())

    @property
    def buckets(self) -> Path:
        """`s3://bucket/key` is `buckets/bucket/key`: look into it, drop files into it, keep it."""
        return self.root / "s3"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def state(self) -> Path:
        return self.root / "state.db"

    @property
    def objects(self) -> Path:
        """What the buckets' files do not say themselves: content types, checksums, uploads under way."""
        return self.root / "objects"

    @property
    def work(self) -> Path:
        """Folders of running jobs; a job's is removed with it. On the same file system as the buckets."""
        return self.root / "work"

    @property
    def interruptions(self) -> Path:
        """Training jobs whose hosts are to be taken away: files of the jobs' names, gone when that has begun."""
        return self.root / "interruptions"

    @property
    def environments(self) -> Path:
        """Virtual environments of the process runtime, one a lock."""
        return self.root / "environments"

    @property
    def server(self) -> Path:
        """Who serves this folder, and where: there while a server runs."""
        return self.root / "server.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def users(self) -> Path:
        """Locked, shared, by each run while it uses a server that ends with the last one."""
        return self.root / "users"

    @property
    def server_log(self) -> Path:
        return self.root / "server.log"

    @property
    def sdk_config(self) -> Path:
        """Settings of the SageMaker SDK."""
        return self.root / "sagemaker-sdk.yaml"

    def make(self) -> None:
        """Make the folder, for its owner alone, and keep it out of any git repository."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.buckets, self.logs, self.objects, self.work, self.interruptions):
            folder.mkdir(exist_ok=True)
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    def credentials(self) -> Credentials:
        """The folder's credentials, made when they are asked for first."""
        path = self.root / "credentials.json"
        if not path.exists():
            key = "AKIA" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(16))
            with whole(path) as partial:
                partial.touch(mode=0o600)
                partial.write_text(json.dumps(asdict(Credentials(key, secrets.token_urlsafe(30)))))
        return Credentials(**json.loads(path.read_text()))


def default_bucket(region: str = REGION) -> str:
    """What the SageMaker SDK calls its default bucket."""
    return f"sagemaker-{region}-{ACCOUNT}"


def registry(region: str = REGION, account: str = ACCOUNT) -> str:
    """The host name of an account's ECR registry."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com"


def arn(resource: str, region: str = REGION) -> str:
    """The ARN of a SageMaker resource such as `training-job/my-job`."""
    return f"arn:aws:sagemaker:{region}:{ACCOUNT}:{resource}"
