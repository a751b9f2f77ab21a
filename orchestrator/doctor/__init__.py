"""Checks behind `microjobs doctor`: of this machine, and of an AWS account."""
