"""What the methods do on the testbed, whose true reward is known: experiments, each with a claim that holds or not.

``python -m benchmarks.testbed`` trains and writes a record; ``python -m benchmarks.testbed table RECORD...`` writes
the tables of records. What is claimed and how it is judged: ``benchmarks/README.md``.
"""
