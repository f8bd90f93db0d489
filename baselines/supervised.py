"""AudioNTT from random weights, fine-tuned with the labels: the baseline of every claim about pre-training.

The encoder is that of BYOL-A v1 (arXiv:2103.06695), trained by Adam at 1e-3 with a cosine schedule and BYOL-A's views as
augmentation. Under `linear` and `knn` the encoder keeps its random weights: the baseline of a frozen encoder.
"""

from lape_bench.learning.systems.audio_ntt_system import AudioNTTSystem


class Supervised(AudioNTTSystem):
    """AudioNTT that sees labels only."""

    # 1 drew the classifier's first weights after the encoder's, from one generator; 3 pools before ReLU, with a fused
    # optimizer: last digits move.
    version = 3
