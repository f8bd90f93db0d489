"""The queue of Slurm: the jobs of a sweep that are in it, and what its commands report."""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.sweep.grid import PlannedItem

MOST_OF_AN_ARRAY = 1000  # a longer array gives no advantage, and 1001 is Slurm's default limit
ANSWERS_IN_SECONDS = 60


class Journal:
    """A file with the job of each cell, so that a sweep that is started again finds the jobs it submitted before.

    Args:
        folder: the folder of the journal and of submitit's files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "jobs.jsonl"

    def read(self, options: RunOptions) -> dict[str, str]:
        """Return the last job of each cell that was submitted with these options, by the cell's identity."""
        jobs: dict[str, str] = {}
        with suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # an empty line, or one that a kill cut off
                    identity, job_options, job = json.loads(line)
                    if job_options == options.model_dump(mode="json"):
                        jobs[identity] = job
        return jobs

    def note(self, identity: str, options: RunOptions, job: str) -> None:
        """Add a cell's job."""
        line = json.dumps([identity, options.model_dump(mode="json"), job])
        with explain_write_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")


def jobs_in_queue(
    items: Sequence[PlannedItem], options: RunOptions, journal: Journal
) -> dict[int, submitit.Job[Any]]:
    """Return the jobs that an earlier start of this sweep submitted and that have not ended, by the cell's number.

    Raises:
        UserError: Slurm does not answer.
    """
    submitted, queued = journal.read(options), queue()
    if queued is None:
        raise UserError(
            "squeue does not answer, so it is unknown which cells are in the queue",
            next_step="try again later, or see the cause with 'squeue --me'",
        )
    return {
        number: submitit.SlurmJob(folder=journal.folder, job_id=submitted[item.planned.identity])
        for number, item in enumerate(items)
        if submitted.get(item.planned.identity) in queued
    }


def queue() -> dict[str, str] | None:
    """Return the state of each job of this user in the queue, by the job's ID; None if Slurm does not answer."""
    # By number: the name may be another one, such as after `sudo` or in a container.
    output = _output_of(
        "squeue", "--user", str(os.getuid()), "--noheader", "--array", "--format=%i %t"
    )
    if output is None:
        return None
    lines = (line.partition(" ") for line in output.splitlines())
    return {job: state.strip() for job, _, state in lines}


def state_of(job: str) -> str:
    """Return the state of a job that has left the queue, such as " (CANCELLED)"; empty if Slurm has forgotten the job."""
    output = _output_of("scontrol", "--oneliner", "show", "job", job)
    state = re.search(r"\bJobState=(\S+)", output or "")
    return f" ({state[1]})" if state else ""


def most_of_an_array() -> int:
    """Return how many jobs an array may have at this site."""
    output = _output_of("scontrol", "show", "config")
    limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", output or "", re.MULTILINE)
    return max(1, min(MOST_OF_AN_ARRAY, int(limit[1]))) if limit else MOST_OF_AN_ARRAY


def _output_of(*command: str) -> str | None:
    """Return what a command of Slurm prints; None if it fails, is not there, or does not answer in time."""
    # A user's SQUEUE_STATES or SQUEUE_PARTITION would hide jobs, which would then count as lost.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        return subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=ANSWERS_IN_SECONDS,
            env=environment,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
