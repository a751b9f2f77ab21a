"""Experiments, their trials, and trial components: what each run or job of a trial read, wrote and measured."""
