"""Check the contract of a system on a few clips of the synthetic task.

Each check states a claim. A failure also gives the observation and its usual cause. Checks that are not possible on
this machine are skipped, with the reason.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lape_bench.conformance.claims import ClaimFailed, ClaimNote, ClaimResult, check_claim
from lape_bench.conformance.encoder import EMBEDS, check_encoder
from lape_bench.conformance.harness import Harness, load_check_data, target_task
from lape_bench.conformance.trained import TRAINS, check_trained
from lape_bench.core.config import Config, describe, validate
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.learning.encoders.base import FASTEST_HZ, SLOWEST_HZ
from lape_bench.runtime.device import Compute
from lape_bench.system import ProtocolName, System

GROUP = "system"


def check_system(
    name: str, settings: dict[str, Any], compute: Compute, progress: Progress
) -> Iterator[ClaimResult]:
    """Run every check of a system: of its class, of its encoder, and of each protocol.

    Args:
        name: the registered name.
        settings: changes to the class's `smoke_settings`.
        compute: device, precision and threads.
        progress: shows the preparation of the synthetic task.

    Yields:
        The result of each check, in the order in which they are made.

    Raises:
        UserError: the system is unknown, or its settings are not valid.
    """
    kind = load_system(name)
    config = validate(
        kind.with_smoke_settings(settings), kind.Settings, where=f"settings of {name}"
    )
    rate = check_claim(GROUP, "states its sample rate in Hz", partial(_rate, kind, config))
    yield rate
    yield check_claim(GROUP, "describes every setting", partial(_described, kind))
    if not rate.holds:
        return
    clips = load_check_data(kind.sample_rate, progress)
    further = kind(config, target_task(), kind.protocols[0]).further_rates
    resampled = {rate: load_check_data(rate, progress).train.clips for rate in further}

    @contextmanager
    def harness(protocol: ProtocolName) -> Iterator[Harness]:
        with tempfile.TemporaryDirectory() as folder:
            make = partial(kind, config, target_task(), protocol)
            yield Harness(make, clips, compute, Path(folder), resampled)

    embeds = True
    with harness(kind.protocols[0]) as first:
        for result in check_encoder(first, finetuned="finetune" in kind.protocols):
            embeds = embeds and (result.holds or result.claim != EMBEDS)
            yield result
    for protocol in kind.protocols:
        if not embeds:
            yield ClaimResult(protocol, TRAINS, "skipped", "the encoder gives no embeddings")
            continue
        with harness(protocol) as own:
            yield from check_trained(own, protocol)


def _rate(kind: type[System], config: Config) -> str:
    rate: object = kind.sample_rate
    if type(rate) is not int:
        raise ClaimFailed(f"sample_rate of the class is {rate!r}; make it an int, such as 16_000")
    if not SLOWEST_HZ <= rate <= FASTEST_HZ:
        raise ClaimFailed(f"sample_rate is {rate:,}; is it in Hz, such as 16_000?")
    own = kind(config, target_task(), kind.protocols[0]).sample_rate
    if own != rate:
        raise ClaimFailed(
            f"sample_rate is {own:,} in the system and {rate:,} in its class; set it in the class, since audio is read before a "
            "system is built"
        )
    return f"{rate:,} Hz"


def _described(kind: type[System]) -> None:
    missing = [setting for setting, _, description in describe(kind.Settings) if not description]
    if missing:
        raise ClaimNote(
            f"settings without a description: {', '.join(missing)}; add Field(..., description=...), which 'bench systems show' "
            "prints"
        )
