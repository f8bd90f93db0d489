"""The student of stage 3: an encoder, a classifier, and a shallow head on each of its blocks."""

from torch import Tensor, nn

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.heads import mlp


class Student(nn.Module):
    """AudioNTT that learns pseudo-labels.

    Args:
        encoder: what stays when the heads are dropped.
        clusters: k, the width of the classifier and of all three layers of a shallow head.
        shallow_heads: whether there are any.
    """

    def __init__(self, encoder: AudioNTT, clusters: int, shallow_heads: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.embedding_size, clusters)
        sizes = encoder.layer_sizes if shallow_heads else ()
        self.shallow = nn.ModuleList(mlp([size] + [clusters] * 3) for size in sizes)

    def forward(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the classifier's logits and those of the shallow heads, each (batch, clusters)."""
        embedding, layers = self.encoder.with_layers(features)
        heads = zip(self.shallow, layers, strict=False)  # without shallow heads, no layer is used
        return self.classifier(embedding), tuple(head(layer) for head, layer in heads)
