"""How cells are run. Nothing here changes what a cell is."""

from pathlib import Path

from lape_bench.core.config import Config
from lape_bench.runtime.device import Compute


class RunOptions(Config):
    """Options for running cells. They are not part of a cell.

    Attributes:
        out: folder of the records.
        compute: device, precision, threads.
        force: run finished cells again.
        audit: also record what published shortcuts would have reported.
        keep_model: keep the trained model beside the record.
        checkpoint_seconds: shortest time between two checkpoints.
    """

    out: Path = Path("results")
    compute: Compute = Compute()
    force: bool = False
    audit: bool = False
    keep_model: bool = False
    checkpoint_seconds: float = 10.0
