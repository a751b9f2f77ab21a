"""S3 on a folder: `s3://bucket/key` is the file `bucket/key` below `Home.buckets`."""
