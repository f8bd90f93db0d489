"""Stage 3, unsupervised fine-tuning: a student learns pseudo-labels by self-distillation (arXiv:2303.05668)."""

from pydantic import Field
from torch import Tensor, nn

from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.random_gain import random_gains
from lape_bench.learning.training.inference import class_log_probabilities
from lape_bench.learning.training.loop import TrainingLoop, UnlabeledConfig
from lape_bench.learning.training.repeated_windows import repeated_features
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.system import Curve, RunContext

from .losses import self_distillation
from .student import Student

STAGE = "distillation"


class DistillConfig(UnlabeledConfig):
    """Stage 3: self-distillation with pseudo-labels.

    The loss weights are the paper's. Adam, the number of steps and the random gain are ours; the steps were chosen on validation.
    `PAPER` has the paper's training, by SGD for 50 epochs at a constant rate.
    """

    shallow_heads: bool = Field(
        True, description="classifiers on the blocks of AudioNTT; other students have none"
    )
    shallow_weight: float = Field(
        0.7, ge=0, description="weight of the shallow heads' cross-entropy"
    )
    kl_weight: float = Field(
        0.3, ge=0, description="weight of the shallow heads' divergence from the classifier"
    )
    feature_weight: float = Field(
        0.003,
        ge=0,
        description="weight of the cosine distance between the logits of shallow heads and classifier",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each pseudo-label that all clusters divide"
    )
    stop_gradient: bool = Field(
        True,
        description="the divergence and the cosine distance give the classifier no gradient; false in the published code",
    )


# Training as in the paper; the constant rate, the window and the gradients are those of its published code.
PAPER = {
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.03,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "warm_up": 0.0,
        "schedule": "constant",
    },
    "batch_size": 64,
    "epochs": 50,
    "min_steps": 1,
    "window_seconds": 0.95,
    "gain_db": 0.0,
    "stop_gradient": False,
}


def distill(
    student: Student,
    views: nn.Module | None,
    clips: Clips,
    pseudo_labels: Tensor,
    config: DistillConfig,
    context: RunContext,
) -> Curve:
    """Train a student in place on pseudo-labels, without labels. An epoch has one view of one random window of each clip.

    Args:
        student: on the context's device; the normalization of its features is fitted.
        views: the augmentation, on the same device, which maps features and a `BatchRandom` to features of the same shape;
            None: no augmentation.
        clips: the audio of the whole train split.
        pseudo_labels: cluster of each clip, shape (clips,), in [0, clusters).
        config: how to train.
        context: device, precision, seeds.

    Returns:
        The number and the mean loss of each epoch.

    Raises:
        UserError: the loss is not finite.
    """
    targets = pseudo_labels.to(context.device)
    plan = config.epoch_plan(clips)
    features_at = repeated_features(student.encoder, clips.lengths, plan.window)

    def inputs(waveforms: Tensor, batch: Tensor, random: BatchRandom) -> tuple[Tensor, ...]:
        gains = random_gains(1, waveforms, config.gain_db, random)
        view = features_at(batch, waveforms, gains)
        if views is not None:
            view = views(view, random)
        return view, targets[batch.to(context.device, non_blocking=True)]

    def loss(view: Tensor, clusters: Tensor) -> Tensor:
        with context.autocast():
            z, shallow = student(view)
        return self_distillation(
            z.float(),
            [z_i.float() for z_i in shallow],
            clusters,
            shallow_weight=config.shallow_weight,
            kl_weight=config.kl_weight,
            feature_weight=config.feature_weight,
            label_smoothing=config.label_smoothing,
            stop_gradient=config.stop_gradient,
        )

    optimizer = config.optimizer
    return TrainingLoop(
        STAGE,
        plan,
        student,
        optimizer.build(student),
        optimizer.learning_rate_factor,
        inputs,
        loss,
        cuda_graphable=student.encoder.cuda_graphable,
        extra_state={} if views is None else {"views": views},
    ).run(context)


def agreement(
    student: Student,
    clips: Clips,
    pseudo_labels: Tensor,
    window_seconds: float,
    context: RunContext,
) -> float:
    """Return the share of clips whose pseudo-label the student's classifier predicts.

    Args:
        student: a trained student.
        clips: scored whole and without augmentation.
        pseudo_labels: cluster of each clip, shape (clips,), on the CPU.
        window_seconds: length of the windows laid over each clip.
        context: device and precision.

    Returns:
        A number in [0, 1].
    """
    scores = class_log_probabilities(
        student.encoder, student.classifier, clips, window_seconds, context
    )
    return float((scores.argmax(dim=1) == pseudo_labels).float().mean())
