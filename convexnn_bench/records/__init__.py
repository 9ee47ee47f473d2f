"""Write, read and merge records, describe their fields, and lock the folder that they lie in."""

from convexnn_bench.records.fields import FIELDS, MEASURED, TEST_FIELDS, blank
from convexnn_bench.records.folder import RecordsLock, check_folder, make_folder
from convexnn_bench.records.machine import code_version, cores, describe_machine, installed
from convexnn_bench.records.merging import merge
from convexnn_bench.records.reading import checked
from convexnn_bench.records.records import (
    JOBS,
    Record,
    RecordFile,
    beta_fraction,
    drop_late,
    keep_late,
    late_records,
    make_key,
    one_line,
    plain,
    storable,
    to_json,
    to_parquet,
)
from convexnn_bench.statuses import BAD_STATUSES, STATUSES
