"""Buckets in host names, as in `bucket.localhost` and `bucket.s3.localhost`."""

LOCALHOST = ".localhost"


def bucket_of_host(host: str) -> str:
    """The bucket that a Host header names; empty if the bucket is in the path."""
    name = host.rpartition(":")[0] or host
    bucket = name.removesuffix(LOCALHOST).removesuffix(".s3") if name.endswith(LOCALHOST) else ""
    return "" if bucket == "s3" else bucket
