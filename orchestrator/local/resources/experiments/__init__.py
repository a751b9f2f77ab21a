"""Experiments, experiment trials, and trial components. A trial component is the record of one job, or of one run of a
client.

In this folder, *trial* is short for experiment trial.
"""
