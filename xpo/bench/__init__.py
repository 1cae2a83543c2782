"""``xpo bench``: methods compared on one model and one data set, each under the same budget and the same examination.

A suite (:mod:`~xpo.bench.suite`) is a set of cells, method x setting x seed (:mod:`~xpo.bench.cell`). Each runs in a
process of its own (:mod:`~xpo.bench.worker`, started by an :mod:`~xpo.bench.executor`) and leaves one file
(:mod:`~xpo.bench.store`); everything that is shown is made of these files alone (:mod:`~xpo.bench.summary`).
"""
