"""Application Auto Scaling: target tracking for the instances of variants and the copies of inference components."""
