"""lape_bench: a benchmark harness for audio classification with few labels.

This module is the public API. Names are imported when they are first used, so `import lape_bench` does not import torch
or pandas:

    import lape_bench as lb

    results = lb.evaluate(MyEncoder, tasks=["esc10"], protocol="linear", seeds=3)
    results.leaderboard()
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lape_bench.api.evaluate import evaluate as evaluate
    from lape_bench.api.evaluate import list_systems as list_systems
    from lape_bench.api.result_set import ResultSet as ResultSet
    from lape_bench.api.result_set import load_results as load_results
    from lape_bench.core.config import Config as Config
    from lape_bench.core.errors import UserError as UserError
    from lape_bench.data.audio_store import Clips as Clips
    from lape_bench.data.labeled_audio import LabeledAudio as LabeledAudio
    from lape_bench.data.labeled_audio import Task as Task
    from lape_bench.data.labeled_audio import TaskSplit as TaskSplit
    from lape_bench.data.labeled_audio import get_task as get_task
    from lape_bench.data.labeled_audio import list_tasks as list_tasks
    from lape_bench.evaluation.kept_model import predict as predict
    from lape_bench.learning.encoders.base import Encoder as Encoder
    from lape_bench.learning.encoders.log_mel import LogMelEncoder as LogMelEncoder
    from lape_bench.learning.systems.encoder_system import EncoderConfig as EncoderConfig
    from lape_bench.learning.systems.encoder_system import EncoderSystem as EncoderSystem
    from lape_bench.learning.systems.encoder_system import PretrainedEncoder as PretrainedEncoder
    from lape_bench.learning.systems.encoder_system import ProbeConfig as ProbeConfig
    from lape_bench.report.compare import Comparison as Comparison
    from lape_bench.system import LabeledClips as LabeledClips
    from lape_bench.system import ParameterCounts as ParameterCounts
    from lape_bench.system import RunContext as RunContext
    from lape_bench.system import System as System
    from lape_bench.system import TargetTask as TargetTask
    from lape_bench.system import TrainingData as TrainingData
    from lape_bench.system import TrainingSummary as TrainingSummary
    from lape_bench.task import ClipEntry as ClipEntry
    from lape_bench.task import Generator as Generator
    from lape_bench.task import Reader as Reader
    from lape_bench.task import Segment as Segment
    from lape_bench.task import TaskCard as TaskCard

    __version__: str

_PUBLIC = {
    "core.config": ("Config",),
    "core.errors": ("UserError",),
    "data.audio_store": ("Clips",),
    "data.labeled_audio": ("LabeledAudio", "Task", "TaskSplit", "get_task", "list_tasks"),
    "api.evaluate": ("evaluate", "list_systems"),
    "evaluation.kept_model": ("predict",),
    "learning.encoders.base": ("Encoder",),
    "learning.encoders.log_mel": ("LogMelEncoder",),
    "learning.systems.encoder_system": (
        "EncoderConfig",
        "EncoderSystem",
        "PretrainedEncoder",
        "ProbeConfig",
    ),
    "report.compare": ("Comparison",),
    "api.result_set": ("ResultSet", "load_results"),
    "system": (
        "LabeledClips",
        "ParameterCounts",
        "RunContext",
        "System",
        "TargetTask",
        "TrainingData",
        "TrainingSummary",
    ),
    "task": ("ClipEntry", "Generator", "Reader", "Segment", "TaskCard"),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted([*_HOMES, "__version__"])

if not TYPE_CHECKING:  # otherwise a type checker would accept any name

    def __getattr__(name):
        """Import a public name when it is first used (PEP 562)."""
        if name == "__version__":
            from importlib.metadata import (
                version,
            )  # importing it takes as long as the rest of this module

            value = version("lape_bench")
        elif name in _HOMES:
            value = getattr(import_module(f"lape_bench.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module 'lape_bench' has no attribute '{name}'")
        globals()[name] = value
        return value

    def __dir__():
        """Return the public names, imported or not."""
        return __all__
