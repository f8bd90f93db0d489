"""Heads on embeddings: projectors, classifiers with a hidden layer or on a sum of layers, and a k-NN classifier."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEIGHBORS = 10
NO_LABEL = -1e4  # bias of a class without a labeled clip
CONSTANT = 1e-6  # a feature with a standard deviation below this share of its mean is constant except for rounding


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


class HiddenLayerClassifier(nn.Module):
    """HEAR's probe with one hidden layer (arXiv:2203.03022): linear, batch norm, ReLU, dropout, linear.

    Weights are Xavier-uniform, as in its code, `hear-eval-kit`. There the weights of the output layer have the gain of ReLU,
    the square root of 2; here those of the hidden layer have it.

    Args:
        features: of the input.
        hidden: features of the hidden layer.
        classes: features of the output.
        dropout: share of hidden features that training drops.
    """

    def __init__(self, features: int, hidden: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, classes)
        nn.init.xavier_uniform_(self.hidden.weight, nn.init.calculate_gain("relu"))
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return class scores, shape (batch, classes)."""
        scores: Tensor = self.output(self.dropout(self.norm(self.hidden(embeddings)).relu()))
        return scores


class WeightedLayers(nn.Module):
    """A linear classifier on the weighted sum of an encoder's standardized layers.

    Args:
        layers: number of layers.
        size: features of each.
        classifier: on the sum.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, layers: int, size: int, classifier: nn.Linear) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(layers))  # before the softmax
        self.classifier = classifier
        self.register_buffer("mean", torch.zeros(layers, size))
        self.register_buffer("scale", torch.ones(layers, size))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return class scores, shape (batch, classes), of all layers' embeddings, (batch, layers * size)."""
        layers = (embeddings.reshape(-1, *self.mean.shape) - self.mean) / self.scale
        summed = torch.einsum("l,bls->bs", self.layer_weights.softmax(dim=0), layers)
        scores: Tensor = self.classifier(summed)
        return scores


@torch.no_grad()
def layer_of_present_classes(
    weight: Tensor, bias: Tensor, present: Tensor, classes: int
) -> nn.Linear:
    """Return a linear layer with an output for every class; a class without a labeled clip never wins.

    Args:
        weight: of the classes that have clips, shape (present, features).
        bias: of the same, shape (present,).
        present: their indices, shape (present,), int64.
        classes: number of all classes.
    """
    weights = torch.zeros(classes, weight.shape[1])
    biases = torch.full((classes,), NO_LABEL)
    weights[present] = weight.float()
    biases[present] = bias.float()
    # Without memory, no random weights are drawn. `skip_init` would import sympy, which takes as long as many probes.
    layer = nn.Linear(weight.shape[1], classes, device="meta")
    layer.weight, layer.bias = nn.Parameter(weights), nn.Parameter(biases)
    return layer


class NearestNeighbors(nn.Module):
    """A k-NN classifier: the nearest train embeddings by cosine vote for their class, weighted by similarity.

    No setting is chosen: k is 10, or the number of train embeddings if that is less. Features are standardized with the
    mean and standard deviation of the train embeddings, so that none dominates by its scale.

    Args:
        embeddings: of labeled train windows, shape (windows, features).
        labels: their classes, shape (windows,).
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
        # A constant feature says nothing; divided by its rounding error it would dominate.
        constant = std <= CONSTANT * mean.abs().clamp(min=CONSTANT)
        std = torch.where(constant, 1.0, std)
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())
        self.register_buffer("embeddings", self._standardized(embeddings))
        self.register_buffer("labels", labels)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logarithm of each class's share of the votes, shape (batch, classes).

        A hundredth of a vote is spread over all classes, so that every logarithm is finite.
        """
        queries = self._standardized(embeddings)
        similarity, nearest = (queries @ self.embeddings.T).topk(
            min(NEIGHBORS, len(self.embeddings)), dim=1
        )
        votes = queries.new_zeros(len(queries), self.classes)
        votes.scatter_add_(1, self.labels[nearest], (1 + similarity) / 2)  # in [0, 1]
        return torch.log((votes + 0.01 / self.classes) / (votes.sum(1, keepdim=True) + 0.01))

    def _standardized(self, embeddings: Tensor) -> Tensor:
        """Standardize embeddings and scale them to unit length, so that products are cosines."""
        return F.normalize((embeddings.float() - self.mean) / self.std, dim=1)
