"""Make the engine that `--on` names."""

from collections.abc import Mapping
from typing import Any

from lape_bench.core.config import validate
from lape_bench.core.errors import UserError, unknown
from lape_bench.sweep.engine import Engine

KINDS = ("ray", "slurm")
PACKAGES = ("ray", "submitit")


def engine(on: str, settings: Mapping[str, Any]) -> Engine:
    """Return the engine for a value of `--on`.

    Args:
        on: "ray" for Ray on this machine alone, "ray:ADDRESS" for a cluster, or "slurm".
        settings: the engine's settings, by name.

    Raises:
        UserError: the engine is unknown, its extra is not installed, or a setting is wrong.
    """
    kind, colon, address = on.partition(":")
    if kind not in KINDS or (colon and (kind == "slurm" or not address)):
        raise unknown("engine", on, ("ray", "ray:ADDRESS", "slurm"))
    where = f"settings of --on {kind}"
    try:
        if kind == "ray":
            from lape_bench.sweep.ray_engine import LOCAL, RayEngine, RaySettings

            return RayEngine(address or LOCAL, validate(settings, RaySettings, where))
        from lape_bench.sweep.slurm_engine import SlurmEngine, SlurmSettings

        return SlurmEngine(validate(settings, SlurmSettings, where))
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise UserError(
            f"--on {kind} needs the package '{error.name}', which is not installed",
            next_step=f"pip install 'lape_bench[{kind}]'",
        ) from error
