"""The student of stage 3: an encoder, a classifier, and shallow heads on the outputs of its blocks."""

from torch import Tensor, nn

from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.heads import mlp


class Student(nn.Module):
    """An encoder with a classifier of pseudo-labels, and a shallow head on each output of `Encoder.with_layers`.

    AudioNTT has three blocks, and so three shallow heads. Most other encoders return no block outputs, so that they have no
    shallow heads.

    Args:
        encoder: the part that is kept after stage 3; the heads are dropped.
        clusters: k, the width of the classifier and of all three layers of a shallow head.
        shallow_heads: False: only the classifier.
    """

    def __init__(self, encoder: Encoder, clusters: int, shallow_heads: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.embedding_size, clusters)
        sizes = encoder.layer_sizes if shallow_heads else ()
        self.shallow = nn.ModuleList(mlp([size] + [clusters] * 3) for size in sizes)

    def forward(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the logits of the classifier and of each shallow head.

        Args:
            features: input of the encoder, shape (batch, ...).

        Returns:
            The logits of the classifier and a tuple with those of the shallow heads, each of shape (batch, clusters).
        """
        embedding, layers = self.encoder.with_layers(features)
        heads = zip(self.shallow, layers, strict=False)  # without shallow heads, no layer is used
        return self.classifier(embedding), tuple(head(layer) for head, layer in heads)
