"""Results in Python: the leaderboard as a data frame, comparisons, and a table in a notebook."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from lape_bench.core.errors import UserError
from lape_bench.report import compare, leaderboard, standing
from lape_bench.report.display_names import with_display_names
from lape_bench.report.standing import Standing
from lape_bench.report.system_pair import find_pair
from lape_bench.results import load
from lape_bench.results.load import Results
from lape_bench.results.reference import reference_folder
from lape_bench.results.submissions import submission_folders
from lape_bench.results.system_card import CARD

PERCENTAGES = {"score": "score_percent", "std": "std_percent", "interval": "ci95_percent"}
COLUMNS = [
    "task", "protocol", "labels", "system", "rank_best", "rank_worst", *PERCENTAGES.values(),
    "interval_over", "metric", "seeds", "folds", "complete", "parameters", "encoder_parameters", "minutes",
    "reference",
]  # fmt: skip


@dataclass(frozen=True, repr=False)
class ResultSet(Results):
    """Finished cells, with a leaderboard and comparisons.

    Attributes:
        cells: a data frame with one row per finished cell; scores are in [0, 1], recomputed from the predictions.
        predictions: the predicted classes of each cell, by its index in `cells`.
        problems: one line for each cell or record that is missing from `cells`, with the reason.

    Example:
        >>> import lape_bench as lb
        >>> results = lb.evaluate("log-mel-statistics", tasks="synthetic-sounds")
        >>> results.leaderboard()[["system", "seeds"]].to_dict("records")
        [{'system': 'log-mel-statistics', 'seeds': 1}]
    """

    @property
    def folders(self) -> list[Path]:
        """The folder of each cell's record, in the order of `cells`. Cells that were read from a table have none."""
        return [self.predictions[index].folder for index in sorted(self.predictions)]

    def leaderboard(self) -> pd.DataFrame:
        """Rank systems on each task, protocol and label budget.

        Returns:
            One row per system, best first on each board, with the columns:

            - `task`, `protocol`, `labels`: the board. The name of a task with synthetic audio says so.
            - `system`: its name, with the settings that differ from its defaults.
            - `rank_best`, `rank_worst`: the range of its rank, by a test over groups of clips and over seeds. Missing
                if a board has only one system or one seed.
            - `score_percent`: mean over seeds of the mean over folds of the task's `metric`, from 0 to 100.
            - `std_percent`: sample standard deviation over seeds, in points; missing for one seed.
            - `ci95_percent`: half the width of the 95 % interval, in points.
            - `interval_over`: what the interval covers: "groups and seeds"; "groups" for one seed, since the interval
                is of that run alone; "seeds" for cells without predictions. If a task has no groups, the unit is the
                clip.
            - `metric`, `seeds`, `folds`, `complete` (True if every fold was run), `parameters` (of encoder and
                classifier), `encoder_parameters`, `minutes` (of training, per cell), `reference` (True if others ran
                the results: they came with lape_bench or are a submission).

        Raises:
            UserError: no cell has finished.
        """
        self._insist_on_cells()
        board = with_display_names(leaderboard.leaderboard(self.cells, self.predictions))
        board[[*PERCENTAGES]] *= 100
        return board.rename(columns=PERCENTAGES).reindex(columns=COLUMNS)

    def compare(
        self,
        a: str,
        b: str,
        task: str,
        protocol: str | None = None,
        labels: str | None = None,
        data: str | None = None,
        clips: int = 10,
        margin: float | None = None,
        other_protocol: str | None = None,
    ) -> compare.Comparison:
        """Compare the scores of two systems on a task, on the seeds, folds and test clips that both have.

        Args:
            a: a system, as named on the leaderboard; the settings may be left out if only one variant was run.
            b: the other system.
            task: the task, or task@variant.
            protocol: "finetune", "linear", "mlp" or "knn"; None: the one that both systems were run with.
            labels: label budget, such as "10%" or "5-shot"; None: the one that both have.
            data: "real" or "synthetic"; None: the one that both have.
            clips: number of clips to list that only one system classifies correctly, most frequent first.
            margin: points by which `a` may be worse, such as 2.0; None: test for a difference only.
            other_protocol: the protocol of `b`, if it is not that of `a`; then `protocol` is needed.

        Returns:
            The difference of the scores, in [-1, 1], with its 95 % interval and tests over groups of clips and over
            seeds, and the groups, classes and clips on which the systems differ. There is no test if there is only one
            seed.

        Raises:
            UserError: a name matches no system or several, or the two systems have no cells in common.
        """
        self._insist_on_cells()
        return compare.compare(
            find_pair(self, a, b, task, protocol, labels, data, other_protocol),
            clips,
            None if margin is None else margin / 100,
        )

    def standing(
        self,
        system: str,
        protocol: str | None = None,
        labels: str | None = None,
        reference: bool = True,
    ) -> Standing:
        """Place a system among the others: overview, nearest systems, curve over label budgets, cost.

        Args:
            system: as the leaderboard names it; settings may be omitted if only one variant was run.
            protocol: None for "linear", or the first one that the system has.
            labels: label budget, such as "5-shot"; None for "10%", or the largest one that the system has.
            reference: add the reference results that come with lape_bench.

        Returns:
            The standing. `bench evaluate` prints `str()` of it.

        Raises:
            UserError: there is no such system, or it has no results under the protocol and label budget.
        """
        self._insist_on_cells()
        if not reference:
            return standing.standing(self, system, protocol, labels)
        together = load.with_references(self, [reference_folder()])
        return standing.standing(together, system, protocol, labels)

    def _insist_on_cells(self) -> None:
        if self.cells.empty:
            first = f": {self.problems[0].rstrip('.')}" if self.problems else ""
            raise UserError(f"no cell has finished{first}", next_step="see 'problems' for all")

    def __repr__(self) -> str:
        return self._shown(lambda board: board.to_string(index=False), "\n")

    def _repr_html_(self) -> str:
        """Show the leaderboard and the problems in a notebook."""
        return self._shown(lambda board: board.to_html(index=False), "<br>", escape)

    def _shown(
        self,
        table: Callable[[pd.DataFrame], str],
        line_end: str,
        quoted: Callable[[str], str] = str,
    ) -> str:
        parts = [quoted(problem) for problem in self.problems]
        if not self.cells.empty:
            board = self.leaderboard().dropna(axis="columns", how="all").round(2)
            parts.insert(0, table(board))
        return line_end.join(parts) or "no results"


def load_results(
    *sources: str | Path, reference: bool = False, submissions: str | Path | None = None
) -> ResultSet:
    """Read folders of records, or CSV files that `bench report --format cells` has written.

    Args:
        sources: folders and files; by default "results".
        reference: add the reference results that come with lape_bench.
        submissions: add the submissions in this folder, such as "results/submissions" of the repository. A submission
            without a card is left out, and named in `problems`.

    Returns:
        The results of every finished cell. Records that failed or cannot be read are named in `problems`.

    Raises:
        UserError: a folder does not exist, or a file is not a table of cells.

    Example:
        >>> import lape_bench as lb
        >>> _ = lb.evaluate("log-mel-statistics", tasks="synthetic-sounds", seeds=2, out="mine")
        >>> lb.load_results("mine").cells[["system", "seed"]].to_dict("list")
        {'system': ['log-mel-statistics', 'log-mel-statistics'], 'seed': [0, 1]}
    """
    paths = [Path(each).expanduser() for each in sources or ("results",)]
    submitted = [] if submissions is None else submission_folders(Path(submissions).expanduser())
    with_card = [folder for folder in submitted if (folder / CARD).exists()]
    others = [*with_card, *([reference_folder()] if reference else [])]
    results = load.load_results(paths, others)
    results.problems.extend(
        f"left out: {folder} has no {CARD}" for folder in submitted if folder not in with_card
    )
    return as_result_set(results)


def as_result_set(results: Results) -> ResultSet:
    """Return the results as a `ResultSet`."""
    return ResultSet(results.cells, results.predictions, results.problems)
