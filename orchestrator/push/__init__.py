"""`microjobs push`: the jobs' images to ECR or to another registry, each under a tag that never changes its meaning."""
