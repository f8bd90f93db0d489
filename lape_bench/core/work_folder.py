"""The folder for a run's checkpoints, from which a killed run is resumed."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lape_bench.core.errors import DamagedFile, UserError, explain_write_errors
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json

STAMP = "stamp.json"
logger = logging.getLogger(__name__)


def checkpoint_folder(work: Path, stamp: Mapping[str, Any]) -> int:
    """Make the folder for a run's checkpoints, or keep that of a killed run.

    Checkpoints with another stamp (device, precision, threads, packages, state of the code) are deleted: a run resumed
    from them could end with other bytes. Checkpoints with a damaged stamp are deleted too.

    Returns:
        How many times the run has been resumed, including now.
    """
    resumed = 0
    try:
        before = read_sealed_json(work / STAMP)
    except DamagedFile as error:
        logger.warning(f"starting again without earlier checkpoints: {error}")
    except OSError:  # the stamp is missing or cannot be read
        pass
    else:
        resumed = before["resumed"] + 1 if before["stamp"] == dict(stamp) else 0
    if not resumed:
        shutil.rmtree(work, ignore_errors=True)
        with explain_write_errors(work):
            work.mkdir(parents=True)
    write_sealed_json(work / STAMP, {"stamp": dict(stamp), "resumed": resumed})
    return resumed


def was_resumed(work: Path) -> bool:
    """Return True if the run of a work folder was resumed from an earlier one."""
    try:
        return bool(read_sealed_json(work / STAMP)["resumed"])
    except (OSError, DamagedFile):
        return False


def may_come_of_checkpoints(error: BaseException) -> bool:
    """Return True if a resumed run may have failed because of a bad checkpoint, so that it should start again without it.

    A user's mistake, a lack of memory and a failing GPU have other causes, and the checkpoints are kept. Checkpoints of the
    harness have checksums. Those of a plug-in may have none, and must not make every later run fail.
    """
    if isinstance(error, DamagedFile):
        return True
    # By name, since importing torch is slow. Its other errors of a GPU are plain RuntimeErrors.
    lacks_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    gpu_failed = isinstance(error, RuntimeError) and "CUDA" in str(error)
    return not (isinstance(error, UserError) or lacks_memory or gpu_failed)
