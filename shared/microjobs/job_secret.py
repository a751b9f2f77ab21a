"""The secret that only the hosts of one job have, in the file `secret/job` of the contract's root.

The local server writes it, and the hosts prove to each other that they know it (`microjobs.peers`).
"""

from microjobs.contract import Layout
from microjobs.errors import UserError

MIN_SECRET_BYTES = 32


def write_job_secret(layout: Layout, secret: str) -> None:
    """Give a host the secret by which the hosts of its job know each other. Only its owner may read the file."""
    layout.job_secret.parent.mkdir(parents=True, exist_ok=True)
    layout.job_secret.touch(mode=0o600, exist_ok=False)
    layout.job_secret.write_text(secret, encoding="ascii")


def read_job_secret(layout: Layout) -> bytes:
    """The job's secret; empty where the platform hands out none, as on AWS.

    Raises:
        UserError: the file is too short to be a secret.
    """
    if not layout.job_secret.exists():
        return b""
    secret = layout.job_secret.read_bytes().strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise UserError(
            f"{layout.job_secret} has {len(secret)} bytes: give every host of the job the same {MIN_SECRET_BYTES} "
            "random bytes or more, such as the output of `openssl rand -hex 32`, or no file"
        )
    return secret
