"""Learning curves as event files of TensorBoard, one run per cell. They are written from curves that exist, so no score moves."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.records.record import RunRecord, cell_folder

EVENTS = "events.out.tfevents.*"


def require_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises:
        UserError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the package tensorboard",
            next_step="pip install 'lape_bench[tensorboard]'",
        )


def write_record_curves(into: Path, record: RunRecord) -> None:
    """Write the learning curves of a cell; its run has the name of the cell's folder below the results."""
    run = cell_folder(Path(), record.cell, record.identity)
    write_curves(into, run.as_posix(), record.curves)


def write_curves(into: Path, run: str, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Write learning curves as scalars `stage/quantity` over epochs. Earlier event files of the run are replaced.

    Args:
        into: folder of all runs, for `tensorboard --logdir`.
        run: name of the run, a path below `into`.
        curves: by stage, one mapping per epoch with the key `epoch`; none writes nothing.

    Raises:
        UserError: TensorBoard is not installed, or the folder cannot be written.
    """
    require_tensorboard()
    if not any(curves.values()):
        return
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger  # slow to import

    with explain_write_errors(into):
        for earlier in (into / run).glob(EVENTS):
            earlier.unlink()
        logger = TensorBoardLogger(into, name=run, version="")
        for stage, rows in curves.items():
            for number, row in enumerate(rows, start=1):
                values = {f"{stage}/{name}": row[name] for name in row if name != "epoch"}
                logger.log_metrics(values, step=int(row.get("epoch", number)))
        logger.finalize("success")
