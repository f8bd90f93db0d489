"""The figures that benchmarks noted, as a table: of one run, or of two beside each other.

pytest tests/benchmarks --benchmark-json=after.json
python -m tests.benchmarks.table [before.json] after.json
"""

import json
import sys
from pathlib import Path
from typing import Any


def noted(path: Path) -> dict[str, Any]:
    """Read what each benchmark of a run noted: its name and the figure's, and the figure."""
    run = json.loads(path.read_text(encoding="utf-8"))
    return {
        f"{benchmark['name'].removeprefix('test_').replace('_', ' ')} | {what}": value
        for benchmark in run["benchmarks"]
        for what, value in benchmark["extra_info"].items()
    }


def table(paths: list[Path]) -> str:
    """Lay the figures of runs side by side, in Markdown; what a run does not have stays empty."""
    runs = [noted(path) for path in paths]
    titles = [path.stem for path in paths] if len(paths) > 1 else ["measured"]
    lines = [f"| benchmark | figure | {' | '.join(titles)} |", "|---|---|" + "---:|" * len(runs)]
    names = dict.fromkeys(name for run in runs for name in run)
    lines += [
        f"| {name} | {' | '.join(str(run.get(name, '')) for run in runs)} |" for name in names
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    if len(given) not in (1, 2) or not all(path.is_file() for path in given):
        sys.exit(
            "usage: python -m tests.benchmarks.table [BEFORE.json] AFTER.json, of pytest --benchmark-json"
        )
    print(table(given))
