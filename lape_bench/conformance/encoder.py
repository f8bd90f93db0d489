"""Claims about an encoder before training: its rate, its embeddings, its gradients and its tensors."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from lape_bench.conformance.claims import (
    ClaimFailed,
    ClaimNote,
    ClaimResult,
    ClaimSkipped,
    check_claim,
)
from lape_bench.conformance.devices import (
    CannotPretend,
    DeviceMismatch,
    devices_differ,
    embed_on_fake_gpu,
    other_device,
    unregistered_tensors,
)
from lape_bench.conformance.harness import Harness
from lape_bench.core.errors import FAILURES, summarize_error
from lape_bench.learning.encoders.base import Encoder, check_embeddings, full_lengths
from lape_bench.learning.systems.encoder_system import EncoderSystem
from lape_bench.learning.training.inference import fit_normalization
from lape_bench.system import RunContext

GROUP = "encoder"
EMBEDS = "turns windows into embeddings, (batch, embedding_size)"
LEVELS = (0.1, 1e-3, 0.2, 0.01)  # of the windows of a batch, so that neighbors differ much
SECONDS = (1.0, 4.7, 12.0)  # the tasks that come with the harness cut windows of 1 to 12 s
SHORTEST = 0.1  # of own tasks, whose clips may be as short
PADDED_SHARES = (0.3, 0.5, 0.77, 1.0)  # of a window that clips fill, one for each of LEVELS
# As a share of the largest number in an embedding: kernels may round differently for another batch size.
ALIKE_WITHIN = {"float32": 0.01, "bf16": 0.05}
NAMED = 3
OVER_THE_BATCH = "is batch norm still training, or is something normalized over the batch?"


def check_encoder(harness: Harness, finetuned: bool) -> Iterator[ClaimResult]:
    """Build the encoder of a system and check every claim.

    Args:
        harness: of any of the system's protocols.
        finetuned: whether one of them trains the encoder.
    """
    system = harness.make()
    if not isinstance(system, EncoderSystem):
        reason = "the system is not an EncoderSystem, so nothing is known of its inside"
        yield ClaimResult(GROUP, EMBEDS, "skipped", reason)
        return
    subject = _Subject(system, harness)
    result = check_claim(GROUP, EMBEDS, partial(_embeds, subject))
    yield result
    if not result.holds:
        return
    checks: list[tuple[str, Callable[[_Subject], str | None]]] = [
        ("works at the rate of the audio it is given", _rate),
        (f"takes windows of {SECONDS[0]:g} to {SECONDS[-1]:g} s", _lengths),
        (f"takes windows of {SHORTEST:g} s, as own tasks may have", _shortest),
        ("in evaluation, gives the same embedding again and does not change", _steady),
        ("a window's embedding does not depend on its neighbors", _independent),
        ("a short clip's embedding does not depend on its padding", _padding_left_out),
        ("its tensors follow it to another device", _moves),
    ]
    if finetuned:
        checks += [
            ("fine-tuning reaches its parameters", _trainable),
            ("its gradients are finite, with a silent window too", _finite_gradients),
        ]
    for claim, check in checks:
        yield check_claim(GROUP, claim, partial(check, subject))


class _Subject:
    """An encoder as its system starts with it, its features fitted."""

    encoder: Encoder

    def __init__(self, system: EncoderSystem, harness: Harness) -> None:
        self.system, self.clips = system, harness.data.train
        self.context: RunContext = harness.context(GROUP)

    def build(self) -> Encoder:
        """Return a new encoder, on the CPU."""
        with self.context.seeds.globally("initial weights"):
            return self.system.build_encoder()

    def noise(self, seconds: float, levels: tuple[float, ...] = LEVELS) -> Tensor:
        """Return a window of noise at each level, shape (levels, samples)."""
        draw = self.context.seeds.torch("noise")
        noise = torch.randn(len(levels), round(seconds * self.clips.rate), generator=draw)
        return (noise * torch.tensor(levels)[:, None]).to(self.context.device)

    def windows(self) -> Tensor:
        """Return four windows of the task's length, shape (4, samples)."""
        return self.noise(self.system.target.window_seconds)

    def embed(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms, (batch, samples), as the harness does, in whatever mode the encoder is in.

        `lengths` are the real samples of each, (batch,); None: all.
        """
        known = self.encoder.length_arguments(
            full_lengths(waveforms) if lengths is None else lengths
        )
        features = self.encoder.features(waveforms, *known)
        with self.context.autocast():
            embeddings: Tensor = self.encoder(features, *known)
        return embeddings

    @torch.no_grad()
    def evaluate(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms as in evaluation."""
        self.encoder.eval()
        return self.embed(waveforms, lengths)

    def alike(self, one: Tensor, other: Tensor) -> bool:
        """Return True if embeddings agree up to rounding."""
        return _difference(one, other) < ALIKE_WITHIN[self.context.precision]


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors, as a share of their largest number."""
    one, other = one.double().cpu(), other.double().cpu()
    largest = torch.maximum(one.abs().max(), other.abs().max())
    return 0.0 if largest == 0 else float((one - other).abs().max() / largest)


def _embeds(subject: _Subject) -> str:
    subject.encoder = subject.build().to(subject.context.device)
    lazy = [name for name, tensor in _tensors(subject.encoder) if is_lazy(tensor)]
    if lazy:
        raise ClaimFailed(
            f"{_some(lazy)} have no shape before the first batch, and what was saved cannot be loaded into them; give Lazy "
            "layers their input size"
        )
    fit_normalization(
        subject.encoder, subject.clips, subject.system.target.window_seconds, subject.context
    )
    windows = subject.windows()
    for batch in (windows, windows[:1]):
        try:
            embeddings = subject.evaluate(batch)
        except RuntimeError as error:
            if devices_differ(error):
                raise ClaimFailed(f"{error}; {_why_left(subject.build())}") from error
            raise
        except ValueError as error:  # such as of a batch norm that is given one number a channel
            if len(batch) > 1:
                raise
            raise ClaimFailed(
                f"one window alone raised {summarize_error(error)}; {OVER_THE_BATCH}"
            ) from error
        check_embeddings(embeddings, (len(batch), subject.encoder.embedding_size), "it")
        if embeddings.dtype not in (torch.float32, torch.bfloat16):
            raise ClaimFailed(f"they are {embeddings.dtype}; heads are float32: .float()")
        if not torch.isfinite(embeddings).all():
            if len(batch) == 1:
                raise ClaimFailed(f"of one window alone they are not finite; {OVER_THE_BATCH}")
            raise ClaimFailed(
                "of plain noise they are not finite; are weights or statistics unset?"
            )
    return f"embedding_size is {subject.encoder.embedding_size:,}"


def _rate(subject: _Subject) -> str:
    subject.system.check_sample_rate(subject.encoder)
    return f"{subject.clips.rate:,} Hz"


def _lengths(subject: _Subject) -> None:
    expected = (1, subject.encoder.embedding_size)
    cause = "is the number of frames built into a layer? pool over time before it"
    for seconds in SECONDS:
        window = subject.noise(seconds, LEVELS[:1])
        try:
            shape = tuple(subject.evaluate(window).shape)
        except Exception as error:  # a layer that does not fit says so in its own way
            message = summarize_error(error).rstrip(".")
            raise ClaimFailed(f"one of {seconds:g} s raised {message}; {cause}") from error
        if shape != expected:
            raise ClaimFailed(
                f"one of {seconds:g} s gave a tensor of shape {shape}, not {expected}; {cause}"
            )


def _shortest(subject: _Subject) -> None:
    try:
        output = subject.evaluate(subject.noise(SHORTEST, LEVELS[:1]))
        embeddings = check_embeddings(output, (1, subject.encoder.embedding_size), "it")
    except FAILURES as error:  # a layer that does not fit says so in its own way
        raise ClaimNote(
            f"{summarize_error(error).rstrip('.')}: tasks with such clips are beyond it"
        ) from error
    if not torch.isfinite(embeddings).all():
        raise ClaimFailed(
            "their embeddings are not finite; is there an average over no frames? let it raise an error instead"
        )


def _steady(subject: _Subject) -> None:
    windows = subject.windows()
    before = {name: tensor.clone() for name, tensor in _tensors(subject.encoder)}
    original = windows.clone()
    first = subject.evaluate(windows)
    if not torch.equal(windows, original):
        raise ClaimFailed(
            "it changes the waveforms that it is given; is there an x.mul_() or x -= in it?"
        )
    subject.encoder.train()
    again = subject.evaluate(windows)
    after = _tensors(subject.encoder)
    changed = [name for name, tensor in after if not _same(tensor, before[name])]
    if changed:
        raise ClaimFailed(
            f"evaluation moves {_some(changed)}; are statistics updated without asking self.training?"
        )
    if not subject.alike(first, again):
        raise ClaimFailed(
            f"two embeddings of the same audio differ by {_difference(first, again):.1%} of their largest number; is "
            "dropout on in evaluation? F.dropout needs training=self.training, and eval() finds no module in a list"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    """Return True if two tensors are equal, NaN included."""
    if one.shape != other.shape:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _tensors(encoder: Encoder) -> list[tuple[str, Tensor]]:
    return [*encoder.named_parameters(), *encoder.named_buffers()]


def _independent(subject: _Subject) -> None:
    windows = subject.windows()
    together = subject.evaluate(windows)
    for index in range(len(windows)):
        alone = subject.evaluate(windows[index : index + 1])[0]
        if subject.alike(alone, together[index]):
            continue
        if not subject.alike(subject.evaluate(windows), together):
            raise ClaimSkipped("its embeddings differ from call to call, which hides it")
        off = _difference(alone, together[index])
        raise ClaimFailed(
            f"alone, a window's embedding differs by {off:.1%} of its largest number; {OVER_THE_BATCH}"
        )


def _padding_left_out(subject: _Subject) -> str:
    if subject.encoder.whole_clip:
        return "clips are embedded whole, so that none is padded"
    if not subject.encoder.uses_lengths:
        try:
            moved = f", and moves embeddings by up to {_padding_effect(subject):.1%} of their largest number"
        except FAILURES:  # such as of a clip that is too short without its padding
            moved = ""
        raise ClaimNote(f"padding is heard{moved}: it does not say uses_lengths")
    off = _padding_effect(subject)
    if not off < ALIKE_WITHIN[subject.context.precision]:
        raise ClaimFailed(
            f"it says uses_lengths, and padding moves embeddings by {off:.1%} of their largest number; is it averaged, "
            "attended to, normalized over, or convolved with a bias in it?"
        )
    return "it says uses_lengths"


def _padding_effect(subject: _Subject) -> float:
    """Return the largest difference that padding makes to a clip, alone or in a batch, as a share of the largest number."""
    windows = subject.windows()
    places = torch.arange(windows.shape[1], device=windows.device)
    shares = torch.tensor(PADDED_SHARES, device=windows.device)
    lengths = (shares * len(places)).long()
    windows[places >= lengths[:, None]] = 0
    together = subject.evaluate(windows, lengths)
    differences = []
    for index, length in enumerate(lengths.tolist()):
        row = slice(index, index + 1)
        alone = subject.evaluate(windows[row, :length])
        padded = subject.evaluate(windows[row], lengths[row])
        differences += [_difference(alone, padded), _difference(alone, together[row])]
    return float(torch.tensor(differences).max())  # NaN if one is


def _moves(subject: _Subject) -> str:
    moved, windows = subject.build(), subject.windows()
    plain, cause = unregistered_tensors(moved), _why_left(moved)
    device = other_device(subject.context.device)
    if device is not None:
        return _moves_to(device, moved, windows, cause, subject)
    try:
        embed_on_fake_gpu(moved, windows)
    except DeviceMismatch as error:
        raise ClaimFailed(f"{error}; {cause}") from error
    except CannotPretend as error:
        doubt = f"; plain attributes may stay behind: {_some(plain)}" if plain else ""
        raise ClaimSkipped(
            f"torch finds no second device here, and pretending a GPU stops at {error}{doubt}"
        ) from error
    return "torch finds no second device here; tried on a pretended GPU"


def _moves_to(
    device: torch.device, moved: Encoder, windows: Tensor, cause: str, subject: _Subject
) -> str:
    try:
        moved.to(device).load_state_dict(subject.encoder.state_dict())
        with torch.no_grad():
            embeddings = moved.eval()(moved.features(windows.to(device)))
    except Exception as error:  # every operation has its own
        message = summarize_error(error).rstrip(".")
        raise ClaimFailed(f"on {device} it raised {message}; {cause}") from error
    if embeddings.device.type != device.type:
        raise ClaimFailed(
            f"the embeddings of waveforms on {device} are on {embeddings.device}; {cause}"
        )
    off = _difference(embeddings, subject.evaluate(windows))
    if not off < max(ALIKE_WITHIN.values()):
        raise ClaimFailed(
            f"on {device} embeddings differ by {off:.1%} of their largest number; {cause}"
        )
    return f"on {device} as on {subject.context.device}"


def _why_left(encoder: Encoder) -> str:
    """Say why tensors of two devices meet in a freshly built encoder that was moved."""
    plain = unregistered_tensors(encoder)
    if plain:
        return f"plain attributes stay behind: {_some(plain)}; use register_buffer, nn.Parameter or nn.ModuleList"
    return "is a tensor made without a device? x.new_zeros(), or device=x.device"


def _trainable(subject: _Subject) -> str:
    parameters = dict(subject.encoder.named_parameters())
    if not parameters:
        raise ClaimSkipped("it has no parameters: fine-tuning trains the classifier alone")
    free = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    if not free:
        raise ClaimFailed(
            "all its parameters are frozen, so that fine-tuning would train the classifier alone; set requires_grad, "
            "or leave finetune out of the protocols"
        )
    _, gradients = _backward(subject, subject.windows())
    reached = {name for name, gradient in gradients.items() if gradient is not None}
    if not reached:
        raise ClaimFailed(
            "no gradient reaches a parameter, so that fine-tuning would train the classifier alone; is there a "
            "torch.no_grad(), .detach() or .numpy() in features() or forward()?"
        )
    left = [f"{len(parameters) - len(free)} frozen"] * (len(free) < len(parameters))
    if len(reached) < len(free):
        left += [f"without a gradient: {_some([name for name in free if name not in reached])}"]
    return f"{len(reached)} of {len(parameters)} tensors" + "".join(f"; {part}" for part in left)


def _finite_gradients(subject: _Subject) -> None:
    windows = subject.windows()
    windows[0] = 0
    embeddings, gradients = _backward(subject, windows)
    if not torch.isfinite(embeddings).all():
        raise ClaimSkipped("the embeddings themselves are not; see the silent clips below")
    wrong = [
        name
        for name, gradient in gradients.items()
        if gradient is not None and not torch.isfinite(gradient).all()
    ]
    if wrong:
        raise ClaimFailed(
            f"that of {_some(wrong)} is not, and one such step ruins a training; is a sqrt() or pow() of 0 on the way, or "
            "a where() around one? add a little inside"
        )


def _backward(subject: _Subject, windows: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Embed as in fine-tuning; return the gradient of each parameter that is not frozen, None if none reaches it."""
    parameters = {n: p for n, p in subject.encoder.named_parameters() if p.requires_grad}
    seeds = subject.context.seeds
    subject.encoder.train()
    with seeds.globally("dropout"):
        embeddings = subject.embed(windows).float()
    if not parameters or not embeddings.requires_grad:
        return embeddings, dict.fromkeys(parameters)
    weights = torch.randn(embeddings.shape, generator=seeds.torch("weights")).to(embeddings)
    gradients = torch.autograd.grad(
        (embeddings * weights).sum(), list(parameters.values()), allow_unused=True
    )
    return embeddings.detach(), dict(zip(parameters, gradients, strict=True))


def _some(names: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
