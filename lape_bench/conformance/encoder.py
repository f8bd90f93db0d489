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
    DeviceMismatch,
    FakeGpuUnsupported,
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
# Standard deviation of the noise in each window of a batch, so that neighbors differ much.
LEVELS = (0.1, 1e-3, 0.2, 0.01)
SECONDS = (1.0, 4.7, 12.0)  # the tasks that come with the harness have windows of 1 to 12 s
SHORTEST = 0.1  # seconds; a user's own task may have clips this short
PADDED_SHARES = (0.3, 0.5, 0.77, 1.0)  # share of the window that each clip of a batch fills
# Differences below this share of an embedding's largest number count as rounding, which may depend on the batch size.
ALIKE_WITHIN = {"float32": 0.01, "bf16": 0.05}
NAMED = 3  # names in a message
OVER_THE_BATCH = "is batch norm still training, or is something normalized over the batch?"


def check_encoder(harness: Harness, finetuned: bool) -> Iterator[ClaimResult]:
    """Build the encoder of a system and check every claim.

    Args:
        harness: a harness for any of the system's protocols.
        finetuned: whether the system has the protocol `finetune`.
    """
    system = harness.make()
    if not isinstance(system, EncoderSystem):
        reason = "the system is not an EncoderSystem, so its encoder cannot be checked"
        yield ClaimResult(GROUP, EMBEDS, "skipped", reason)
        return
    subject = _Subject(system, harness)
    result = check_claim(GROUP, EMBEDS, partial(_embeds, subject))
    yield result
    if not result.holds:
        return
    checks: list[tuple[str, Callable[[_Subject], str | None]]] = [
        ("has the sample rate of the system's audio", _rate),
        (f"takes windows of {SECONDS[0]:g} to {SECONDS[-1]:g} s", _lengths),
        (f"takes windows of {SHORTEST:g} s, which your own tasks may have", _shortest),
        ("in evaluation, repeats its embeddings and does not change", _steady),
        ("a window's embedding does not depend on its neighbors", _independent),
        ("a short clip's embedding does not depend on its padding", _padding_left_out),
        ("moves to another device with all its tensors", _moves),
    ]
    if finetuned:
        checks += [
            ("fine-tuning reaches its parameters", _trainable),
            ("its gradients are finite, also for a silent window", _finite_gradients),
        ]
    for claim, check in checks:
        yield check_claim(GROUP, claim, partial(check, subject))


class _Subject:
    """The encoder of an untrained system, and the context and clips to check it with."""

    encoder: Encoder

    def __init__(self, system: EncoderSystem, harness: Harness) -> None:
        self.system, self.clips = system, harness.data.train
        self.context: RunContext = harness.context(GROUP)

    def build(self) -> Encoder:
        """Return a new encoder, on the CPU."""
        with self.context.seeds.globally("initial weights"):
            return self.system.build_encoder()

    def noise(self, seconds: float, levels: tuple[float, ...] = LEVELS) -> Tensor:
        """Return a window of noise for each level, shape (levels, samples)."""
        draw = self.context.seeds.torch("noise")
        noise = torch.randn(len(levels), round(seconds * self.clips.rate), generator=draw)
        return (noise * torch.tensor(levels)[:, None]).to(self.context.device)

    def windows(self) -> Tensor:
        """Return four windows of the task's length, shape (4, samples)."""
        return self.noise(self.system.target.window_seconds)

    def embed(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms as in a run, without changing the encoder's mode.

        Args:
            waveforms: shape (batch, samples).
            lengths: number of real samples in each, shape (batch,); None: all.

        Returns:
            Shape (batch, embedding_size).
        """
        length_arguments = self.encoder.length_arguments(
            full_lengths(waveforms) if lengths is None else lengths
        )
        features = self.encoder.features(waveforms, *length_arguments)
        with self.context.autocast():
            embeddings: Tensor = self.encoder(features, *length_arguments)
        return embeddings

    @torch.no_grad()
    def evaluate(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms as in evaluation."""
        self.encoder.eval()
        # Copied, since an encoder may write into the same memory in every call.
        return self.embed(waveforms, lengths).clone()

    def alike(self, one: Tensor, other: Tensor) -> bool:
        """Return True if embeddings agree up to rounding."""
        return _difference(one, other) < ALIKE_WITHIN[self.context.precision]


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference between two tensors, as a share of their largest number."""
    one, other = one.double().cpu(), other.double().cpu()
    largest = torch.maximum(one.abs().max(), other.abs().max())
    return 0.0 if largest == 0 else float((one - other).abs().max() / largest)


def _embeds(subject: _Subject) -> str:
    subject.encoder = subject.build().to(subject.context.device)
    lazy = [name for name, tensor in _tensors(subject.encoder) if is_lazy(tensor)]
    if lazy:
        raise ClaimFailed(
            f"{_some(lazy)} have no shape before the first batch, so saved weights cannot be loaded into them; give Lazy "
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
        except ValueError as error:  # such as from a batch norm with a single value per channel
            if len(batch) > 1:
                raise
            raise ClaimFailed(
                f"one window alone raised {summarize_error(error)}; {OVER_THE_BATCH}"
            ) from error
        check_embeddings(embeddings, (len(batch), subject.encoder.embedding_size), "it")
        if embeddings.dtype not in (torch.float32, torch.bfloat16):
            raise ClaimFailed(
                f"embeddings are {embeddings.dtype}, and heads are float32; return .float()"
            )
        if not torch.isfinite(embeddings).all():
            if len(batch) == 1:
                raise ClaimFailed(
                    f"the embedding of one window alone is not finite; {OVER_THE_BATCH}"
                )
            raise ClaimFailed(
                "embeddings of noise are not finite; are weights or statistics unset?"
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
        except Exception as error:  # layers raise errors of many types
            message = summarize_error(error).rstrip(".")
            raise ClaimFailed(f"a window of {seconds:g} s raised {message}; {cause}") from error
        if shape != expected:
            raise ClaimFailed(
                f"a window of {seconds:g} s gave a tensor of shape {shape}, not {expected}; {cause}"
            )


def _shortest(subject: _Subject) -> None:
    try:
        output = subject.evaluate(subject.noise(SHORTEST, LEVELS[:1]))
        embeddings = check_embeddings(output, (1, subject.encoder.embedding_size), "it")
    except FAILURES as error:  # layers raise errors of many types
        raise ClaimNote(
            f"{summarize_error(error).rstrip('.')}; it cannot run on tasks with such clips"
        ) from error
    if not torch.isfinite(embeddings).all():
        raise ClaimFailed(
            "their embeddings are not finite; is there an average over no frames? raise an error instead"
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
            f"evaluation changes {_some(changed)}; are statistics updated without checking self.training?"
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
            raise ClaimSkipped(
                "its embeddings differ from call to call, so nothing can be compared"
            )
        difference = _difference(alone, together[index])
        raise ClaimFailed(
            f"alone, a window's embedding differs by {difference:.1%} of its largest number; {OVER_THE_BATCH}"
        )


def _padding_left_out(subject: _Subject) -> str:
    if subject.encoder.whole_clip:
        return "clips are embedded whole, so that none is padded"
    if not subject.encoder.uses_lengths:
        try:
            effect = f" by up to {_padding_effect(subject):.1%} of their largest number"
        except FAILURES:  # such as of a clip that is too short without its padding
            effect = ""
        raise ClaimNote(f"padding changes embeddings{effect}, since it does not set uses_lengths")
    difference = _padding_effect(subject)
    if not difference < ALIKE_WITHIN[subject.context.precision]:
        raise ClaimFailed(
            f"it sets uses_lengths, but padding changes embeddings by {difference:.1%} of their largest number; does an average, "
            "attention, a normalization or a convolution with a bias include the padding?"
        )
    return "it sets uses_lengths"


def _padding_effect(subject: _Subject) -> float:
    """Return the largest change of an embedding by padding, alone or in a batch, as a share of its largest number."""
    windows = subject.windows()
    positions = torch.arange(windows.shape[1], device=windows.device)
    shares = torch.tensor(PADDED_SHARES, device=windows.device)
    lengths = (shares * len(positions)).long()
    windows[positions >= lengths[:, None]] = 0
    together = subject.evaluate(windows, lengths)
    differences = []
    for index, length in enumerate(lengths.tolist()):
        row = slice(index, index + 1)
        alone = subject.evaluate(windows[row, :length])
        padded = subject.evaluate(windows[row], lengths[row])
        differences += [_difference(alone, padded), _difference(alone, together[row])]
    return float(torch.tensor(differences).max())  # NaN if any difference is NaN


def _moves(subject: _Subject) -> str:
    moved, windows = subject.build(), subject.windows()
    unregistered, cause = unregistered_tensors(moved), _why_left(moved)
    device = other_device(subject.context.device)
    if device is not None:
        return _moves_to(device, moved, windows, cause, subject)
    try:
        embed_on_fake_gpu(moved, windows)
    except DeviceMismatch as error:
        raise ClaimFailed(f"{error}; {cause}") from error
    except FakeGpuUnsupported as error:
        doubt = f"; plain attributes may stay behind: {_some(unregistered)}" if unregistered else ""
        raise ClaimSkipped(
            f"torch finds no second device here, and a fake GPU cannot run it ({error}){doubt}"
        ) from error
    return "tried on a fake GPU, since torch finds no second device here"


def _moves_to(
    device: torch.device, moved: Encoder, windows: Tensor, cause: str, subject: _Subject
) -> str:
    try:
        moved.to(device).load_state_dict(subject.encoder.state_dict())
        with torch.no_grad():
            embeddings = moved.eval()(moved.features(windows.to(device)))
    except Exception as error:  # each operation raises a type of its own
        message = summarize_error(error).rstrip(".")
        raise ClaimFailed(f"on {device} it raised {message}; {cause}") from error
    if embeddings.device.type != device.type:
        raise ClaimFailed(
            f"the embeddings of waveforms on {device} are on {embeddings.device}; {cause}"
        )
    difference = _difference(embeddings, subject.evaluate(windows))
    if not difference < max(ALIKE_WITHIN.values()):
        raise ClaimFailed(
            f"on {device} embeddings differ by {difference:.1%} of their largest number; {cause}"
        )
    return f"on {device} as on {subject.context.device}"


def _why_left(encoder: Encoder) -> str:
    """Return the likely reason why a new encoder has tensors on two devices after a move."""
    unregistered = unregistered_tensors(encoder)
    if unregistered:
        return f"plain attributes stay behind: {_some(unregistered)}; use register_buffer, nn.Parameter or nn.ModuleList"
    return "is a tensor made without a device? x.new_zeros(), or device=x.device"


def _trainable(subject: _Subject) -> str:
    parameters = dict(subject.encoder.named_parameters())
    if not parameters:
        raise ClaimSkipped("it has no parameters, so fine-tuning trains only the classifier")
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    if not trainable:
        raise ClaimFailed(
            "all its parameters are frozen, so fine-tuning would train only the classifier; set requires_grad, "
            "or leave finetune out of the protocols"
        )
    _, gradients = _backward(subject, subject.windows())
    reached = {name for name, gradient in gradients.items() if gradient is not None}
    if not reached:
        raise ClaimFailed(
            "no gradient reaches a parameter, so fine-tuning would train only the classifier; is there a "
            "torch.no_grad(), .detach() or .numpy() in features() or forward()?"
        )
    remarks = [f"{len(parameters) - len(trainable)} frozen"] * (len(trainable) < len(parameters))
    if len(reached) < len(trainable):
        unreached = [name for name in trainable if name not in reached]
        remarks += [f"without a gradient: {_some(unreached)}"]
    return "; ".join([f"{len(reached)} of {len(parameters)} tensors", *remarks])


def _finite_gradients(subject: _Subject) -> None:
    windows = subject.windows()
    windows[0] = 0
    embeddings, gradients = _backward(subject, windows)
    if not torch.isfinite(embeddings).all():
        raise ClaimSkipped("its embeddings are not finite either; see the silent clips below")
    wrong = [
        name
        for name, gradient in gradients.items()
        if gradient is not None and not torch.isfinite(gradient).all()
    ]
    if wrong:
        raise ClaimFailed(
            f"the gradient of {_some(wrong)} is not finite, and one such step ruins a training; is there a sqrt() or pow() of 0, "
            "or a where() around one? add a small number inside it"
        )


def _backward(subject: _Subject, windows: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Embed windows as in fine-tuning, and run a backward pass.

    Returns:
        The embeddings, shape (batch, embedding_size), and the gradient of each trainable parameter, None if it gets none.
    """
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
    """Return the first few names, and the number of the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
