"""AudioNTT from random weights, fine-tuned with the labels: the baseline of every claim about pre-training.

The encoder is that of BYOL-A v1 (arXiv:2103.06695), trained by Adam at 1e-3 with a cosine schedule and BYOL-A's views as
augmentation. Under `linear`, `mlp` and `knn` the encoder keeps its random weights: the baseline of a frozen encoder.
"""

from lape_bench.learning.systems.audio_ntt_system import AudioNTTSystem


class Supervised(AudioNTTSystem):
    """AudioNTT that learns from labels only."""

    # Version 1 drew the initial weights of encoder and classifier from one generator. Version 3 pools before ReLU and has a
    # fused optimizer, which change the last digits.
    version = 3
