"""The known reward against the KL to the start: how much of the one a method gets for how much of the other.

``python -m benchmarks.frontier`` trains, and writes a record and a figure; ``python -m benchmarks.frontier table
RECORD...`` writes the tables of records, and ``figure RECORD...`` draws them again.
"""
