"""The records of this benchmark."""

from benchmarks.records import Records

RECORDS = Records("testbed")
