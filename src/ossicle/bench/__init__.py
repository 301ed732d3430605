"""Measure speed and memory of a network on this machine, for each way to run it, and find one within a budget.

`forms` defines the variants, `measure` runs them, each in a `worker` process.
"""
