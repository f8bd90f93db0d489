"""The reference results that come with the harness: `results/reference` of the repository."""

from importlib.resources import files
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.records.pack import find_packs

INSTALLED = "lape_bench.reference"


def reference_folder() -> Path:
    """Return the folder of the reference results, one pack for each task.

    Raises:
        UserError: this installation has none.
    """
    try:
        folder = Path(str(files(INSTALLED)))
    except ModuleNotFoundError:  # an editable install that is older than this folder
        folder = Path(__file__).parents[2] / "results" / "reference"
    if not folder.is_dir() or not find_packs(folder):
        raise UserError(
            "this installation has no reference results",
            next_step="install lape_bench again, or leave --reference out",
        )
    return folder
