"""A virtual environment of its own for a test, in which packages are installed as a user installs them, offline.

It sees the packages of the environment that runs the tests, lape_bench among them, and nothing installed in it is seen
elsewhere.
"""

import os
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

SCRIPTS = {"bench": "lape_bench.__main__", "pip": "pip", "pytest": "pytest"}


class Environment(NamedTuple):
    """A virtual environment.

    Attributes:
        folder: of the environment.
        site_packages: where its own packages are installed.
        variables: of processes that run in it.
    """

    folder: Path
    site_packages: Path
    variables: dict[str, str]

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a command in it and keep what it says; its exit code is the caller's to check."""
        program = self.folder / "bin" / command[0]
        return subprocess.run(
            [str(program) if program.exists() else command[0], *command[1:]],
            cwd=cwd,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def succeed(self, *command: str, cwd: Path) -> str:
        """Run a command that must succeed and return what it prints."""
        done = self.run(*command, cwd=cwd)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def register(self, name: str, systems: dict[str, str]) -> None:
        """Write the metadata of an installed distribution that registers systems, and nothing else of it."""
        metadata = self.site_packages / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in systems.items()]
        text = "\n".join(["[lape_bench.systems]", *lines, ""])
        (metadata / "entry_points.txt").write_text(text)


def make_environment(folder: Path, cache: Path) -> Environment:
    """Make an environment.

    Args:
        folder: an empty folder to make it in.
        cache: what LAPE_BENCH_HOME is in it.
    """
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # addsitedir, where a path would do for most packages, also follows what makes an editable install importable.
    seen = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    lines = [f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(seen)]
    (site_packages / "running.pth").write_text("\n".join([*lines, ""]))
    for name, module in SCRIPTS.items():
        script = folder / "bin" / name
        script.write_text(f"#!/bin/sh\nexec '{python}' -P -m {module} \"$@\"\n")
        script.chmod(0o755)
    variables = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "PYTHON"))
        },
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(folder),
        "LAPE_BENCH_HOME": str(cache),
        "OMP_NUM_THREADS": "1",
        # Offline: what builds a package is taken from here, and what it needs is here.
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_QUIET": "1",
    }
    return Environment(folder, site_packages, variables)
