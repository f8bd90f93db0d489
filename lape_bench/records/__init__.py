"""Records of cells, and the predictions beside them.

The names of `record.py` can be imported from here.
"""

from lape_bench.records.record import (
    PREDICTIONS,
    PROTOCOL_VERSION,
    RECORD,
    SEAL,
    ArtifactUse,
    Cell,
    ParameterCounts,
    RunRecord,
    StageCost,
    TaskFacts,
    cell_folder,
    find_records,
    read_record,
    write_record,
)

__all__ = [
    "PREDICTIONS",
    "PROTOCOL_VERSION",
    "RECORD",
    "SEAL",
    "ArtifactUse",
    "Cell",
    "ParameterCounts",
    "RunRecord",
    "StageCost",
    "TaskFacts",
    "cell_folder",
    "find_records",
    "read_record",
    "write_record",
]
