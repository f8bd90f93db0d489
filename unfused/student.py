"""The student of stage 3: an encoder, a classifier, and shallow heads on the outputs of its blocks."""

from torch import Tensor, nn

from lape_bench.core.errors import UserError
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.heads import mlp


class Student(nn.Module):
    """An encoder with a classifier of pseudo-labels, and a shallow head on each output of `Encoder.with_layers`.

    AudioNTT has three blocks, and so three shallow heads. Most other encoders return no block outputs, so that they have no
    shallow heads. In the published code the layers of a shallow head have no biases; here they have.

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

        Raises:
            UserError: the encoder does not return block outputs of the sizes that it names.
        """
        embedding, layers = self.encoder.with_layers(features)
        if not len(self.shallow):
            return self.classifier(embedding), ()
        sizes, returned = self.encoder.layer_sizes, tuple(layer.shape[1] for layer in layers)
        if returned != sizes:
            raise UserError(
                f"with_layers of the student's encoder returns block outputs of sizes {returned}, and its layer_sizes are {sizes}",
                next_step="make them agree, or set distill.shallow_heads=false",
            )
        shallow = (head(layer) for head, layer in zip(self.shallow, layers, strict=True))
        return self.classifier(embedding), tuple(shallow)
