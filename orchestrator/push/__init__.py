"""`microjobs push`: pushes the images of jobs to ECR or another registry. A pushed tag is never overwritten."""
