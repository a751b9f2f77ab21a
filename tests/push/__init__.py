"""Tests of `microjobs push`, with a real registry where there is one."""
