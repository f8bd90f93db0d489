"""Random start, fine-tuned with the labels: the line every claim of pre-training is measured from.

AudioNTT (BYOL-A v1, arXiv:2103.06695) from random weights, Adam at 1e-3 with a cosine, the family's views as
augmentation. Under `linear` and `knn` the encoder stays random, which is the floor of a frozen encoder.
"""

from lape_bench.learning.systems.audio_ntt_system import AudioNTTSystem


class Supervised(AudioNTTSystem):
    """AudioNTT that sees labels only."""

    # 1 drew the classifier's first weights after the encoder's, from one generator; 3 pools before ReLU, with a fused
    # optimizer: last digits move.
    version = 3
