"""Experiments, experiment trials, and trial components: the records of each run or job of an experiment trial.

In this folder, *trial* is short for experiment trial.
"""
