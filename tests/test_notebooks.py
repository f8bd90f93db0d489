"""The notebooks of the site run from the first cell to the last, and hold the outputs of such a run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws(path: Path, own_artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "work")}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    assert images(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_with_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [*range(1, len(counts) + 1)]
    assert images(notebook)
    assert path.stat().st_size < 200_000


def images(notebook: nbformat.NotebookNode) -> int:
    """Count the plots among the outputs."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)
