"""Check the contract of a system on a few clips of the synthetic task.

Each check states a claim. A failure also says what was observed and what usually causes it. Checks that are not
possible on this machine are skipped, with the reason.
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
from lape_bench.runtime.device import Compute
from lape_bench.system import ProtocolName, System

GROUP = "system"
SLOWEST_HZ, FASTEST_HZ = 1_000, 400_000  # below, it is kHz; above, no recording has it


def check_system(
    name: str, settings: dict[str, Any], compute: Compute, progress: Progress
) -> Iterator[ClaimResult]:
    """Run every check of a system: of its class, of its encoder, and of each protocol.

    Args:
        name: the registered name.
        settings: what to change of the class's `smoke_settings` settings.
        compute: device, precision and threads.
        progress: told of preparing the synthetic task.

    Raises:
        UserError: the system is unknown, or its settings are not valid.
    """
    kind = load_system(name)
    config = validate(
        kind.with_smoke_settings(settings), kind.Settings, where=f"settings of {name}"
    )
    rate = check_claim(GROUP, "says the rate of its audio in Hz", partial(_rate, kind, config))
    yield rate
    yield check_claim(GROUP, "says what each setting is", partial(_described, kind))
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
    with harness(kind.protocols[0]) as on:
        for result in check_encoder(on, finetuned="finetune" in kind.protocols):
            embeds = embeds and (result.holds or result.claim != EMBEDS)
            yield result
    for protocol in kind.protocols:
        if not embeds:
            yield ClaimResult(protocol, TRAINS, "skipped", "the encoder comes first")
            continue
        with harness(protocol) as on:
            yield from check_trained(on, protocol)


def _rate(kind: type[System], config: Config) -> str:
    rate: object = kind.sample_rate
    if type(rate) is not int:
        raise ClaimFailed(f"sample_rate of the class is {rate!r}; make it an int, such as 16_000")
    if not SLOWEST_HZ <= rate <= FASTEST_HZ:
        raise ClaimFailed(f"sample_rate is {rate:,}; is it in Hz, such as 16_000?")
    own = kind(config, target_task(), kind.protocols[0]).sample_rate
    if own != rate:
        raise ClaimFailed(
            f"a system says {own:,} and its class {rate:,}; audio is read before a system is built, so the class must "
            "know"
        )
    return f"{rate:,} Hz"


def _described(kind: type[System]) -> None:
    silent = [setting for setting, _, description in describe(kind.Settings) if not description]
    if silent:
        raise ClaimNote(
            f"without a description: {', '.join(silent)}; Field(..., description=...) shows one in 'bench systems show'"
        )
