"""Tests of `microjobs push`, with a real registry if one is installed."""
