"""The workflows, boto3 programs, one file per workflow."""
