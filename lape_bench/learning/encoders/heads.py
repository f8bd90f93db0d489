"""Heads: embeddings in; projections, or class scores, out."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEIGHBORS = 10
CONSTANT = 1e-6  # a deviation below this share of the mean is rounding


def mlp(sizes: Sequence[int], bias: bool = True) -> nn.Sequential:
    """Build linear layers with batch norm and ReLU between them.

    Args:
        sizes: features of the input, of each layer between, and of the output.
        bias: whether the layers before a batch norm, and the last one, have a bias.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


class NearestNeighbors(nn.Module):
    """k nearest train embeddings by cosine similarity, each voting for its class by its similarity.

    Nothing is fitted and nothing chosen: k is 10, or the number of train embeddings if that is less. Features
    are standardized by the train set's mean and deviation first, so that no large one drowns the rest.

    Args:
        embeddings: of the labeled train clips, shape (clips, features).
        labels: their classes, shape (clips,).
        classes: number of classes.
    """

    mean: Tensor
    std: Tensor
    embeddings: Tensor
    labels: Tensor

    def __init__(self, embeddings: Tensor, labels: Tensor, classes: int) -> None:
        super().__init__()
        self.classes = classes
        exact = embeddings.double()
        mean = exact.mean(dim=0)
        std = exact.sub(mean).square().mean(dim=0).sqrt()
        # A feature that is constant on the train clips says nothing; dividing by its rounding would let it shout.
        constant = std <= CONSTANT * mean.abs().clamp(min=CONSTANT)
        std = torch.where(constant, 1.0, std)
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())
        self.register_buffer("embeddings", self._standardized(embeddings))
        self.register_buffer("labels", labels)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return logarithms of the classes' share of the vote, shape (batch, classes).

        A class without a vote gets a hundredth of one, shared by all classes.
        """
        queries = self._standardized(embeddings)
        similarity, nearest = (queries @ self.embeddings.T).topk(
            min(NEIGHBORS, len(self.embeddings)), dim=1
        )
        votes = queries.new_zeros(len(queries), self.classes)
        votes.scatter_add_(1, self.labels[nearest], (1 + similarity) / 2)  # in [0, 1]
        return torch.log((votes + 0.01 / self.classes) / (votes.sum(1, keepdim=True) + 0.01))

    def _standardized(self, embeddings: Tensor) -> Tensor:
        """Unit vectors of standardized embeddings, so that a product is a cosine."""
        return F.normalize((embeddings.float() - self.mean) / self.std, dim=1)
