"""The folder for a run's checkpoints, which a killed run leaves to the next one."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lape_bench.core.errors import DamagedFile, explain_write_errors
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json

STAMP = "stamp.json"
logger = logging.getLogger(__name__)


def checkpoint_folder(work: Path, stamp: Mapping[str, Any]) -> int:
    """Make a folder for a run's checkpoints, or keep that of a killed run.

    What was left there under another stamp (device, precision, threads, packages, state of the code) is
    dropped: a run that went on from it could end with other bytes. So is what was left under a damaged stamp.

    Returns:
        How often the run was taken up after a kill.
    """
    resumed = 0
    try:
        before = read_sealed_json(work / STAMP)
    except DamagedFile as error:
        logger.warning(f"starting again without earlier checkpoints: {error}")
    except OSError:  # there is none, or it cannot be read
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
    """Tell whether the run of a work folder went on from what an earlier run left."""
    try:
        return bool(read_sealed_json(work / STAMP)["resumed"])
    except (OSError, DamagedFile):
        return False
