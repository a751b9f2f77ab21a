"""Checks of this machine and of an AWS account, for `microjobs doctor`."""
