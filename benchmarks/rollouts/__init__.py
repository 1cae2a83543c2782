"""Steps of training on completions that are sampled in them, side by side: time, of it sampling, and memory.

``python -m benchmarks.rollouts`` measures and writes a record; ``python -m benchmarks.rollouts table RECORD...`` writes
the tables of records. Every run has a process of its own, and the sides of a case take turns.
"""
