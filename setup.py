"""Find the packages: the harness's rooms, and the plug-in rooms, which stand beside it in the tree and below it once installed."""

from setuptools import find_packages, setup

ROOMS = {
    "tasks": "tasks",
    "baselines": "baselines",
    "unfused": "unfused",
    "published": "results/published",
    "reference": "results/reference",
}

setup(
    packages=[
        *find_packages(
            include=["lape_bench", "lape_bench.*"], exclude=["lape_bench.plugins.templates*"]
        ),
        *(f"lape_bench.{name}" for name in ROOMS),
    ],
    package_dir={"lape_bench": "lape_bench"}
    | {f"lape_bench.{name}": folder for name, folder in ROOMS.items()},
)
