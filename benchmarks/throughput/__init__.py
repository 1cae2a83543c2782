"""The same training steps by TRL's own trainers and by xpo's layouts, side by side: time, memory, losses.

``python -m benchmarks.throughput`` measures and writes a record; ``python -m benchmarks.throughput table RECORD...``
writes the tables of records. What is measured and by which rules: ``benchmarks/README.md``.
"""
