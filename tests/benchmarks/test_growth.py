"""A hundred times the clips cost a hundred times as much and little more memory; so do cells, embeddings and long clips."""

from typing import Any

import pytest

from tests.benchmarks.growth import measure


@pytest.fixture(autouse=True)
def home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("work", "few", "many", "exponent", "mib"),
    [
        ("manifest", 10_000, 100_000, 1.3, 1024),
        ("embedding", 1_000, 100_000, 1.1, 512),
        ("pre-training", 1_000, 100_000, 1.1, 2048),
        ("scoring", 1_000, 10_000, 1.1, 512),
        ("k-means", 10_000, 100_000, 1.3, 3072),
        ("sweep", 500, 5_000, 1.3, 512),
    ],
)
def test_the_cost_grows_no_faster_than_the_amount(
    work: str, few: int, many: int, exponent: float, mib: int, benchmark: Any
) -> None:
    least = measure(work, few)
    most = benchmark.pedantic(measure, (work, many), rounds=1)
    growth = most.seconds / least.seconds
    benchmark.extra_info[f"{work}, {many:,} against {few:,}: times the processor time"] = round(
        growth, 1
    )
    benchmark.extra_info[f"{work}, {many:,} against {few:,}: MiB"] = (
        f"{most.mib:.0f} against {least.mib:.0f}"
    )
    assert growth < (many / few) ** exponent
    assert most.mib < mib
