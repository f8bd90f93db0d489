"""Nearest neighbors against scikit-learn and a loop over clips, and the layers of a projector by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.learning.encoders.heads import NearestNeighbors, mlp

CLASSES = 4


def embedded(clips: int, seed: int, features: int = 6) -> Tensor:
    """Embeddings whose features differ in size and place."""
    drawn = torch.randn(clips, features, generator=torch.Generator().manual_seed(seed))
    return drawn * torch.tensor([1.0, 100.0, 0.01, 3.0, 1.0, 10.0][:features]) + 2.0


def labels_of(clips: int, seed: int = 9) -> Tensor:
    return torch.randint(CLASSES, (clips,), generator=torch.Generator().manual_seed(seed))


def votes_by_hand(train: Tensor, labels: Tensor, queries: Tensor) -> NDArray[np.float64]:
    x, q = train.double().numpy(), queries.double().numpy()
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    x, q = (x - mean) / deviation, (q - mean) / deviation
    rows = []
    for query in q:
        similarity = [query @ known / np.linalg.norm(query) / np.linalg.norm(known) for known in x]
        votes = np.zeros(CLASSES)
        for index in np.argsort(similarity)[::-1][:10]:
            votes[int(labels[index])] += (1 + similarity[index]) / 2
        rows.append(votes)
    return np.array(rows)


@pytest.mark.parametrize("clips", [40, 10, 7, 2])
def test_the_vote_agrees_with_a_loop_over_clips_and_their_neighbors(clips: int) -> None:
    train, labels, queries = embedded(clips, 0), labels_of(clips), embedded(15, 1)
    votes = votes_by_hand(train, labels, queries)
    # A class without a vote gets a hundredth of one, shared by all classes.
    expected = np.log((votes + 0.01 / CLASSES) / (votes.sum(axis=1, keepdims=True) + 0.01))
    found = NearestNeighbors(train, labels, CLASSES)(queries)
    assert_close(found.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clips", [60, 7])
def test_the_vote_agrees_with_scikit_learn(clips: int) -> None:
    train, labels, queries = embedded(clips, 2), labels_of(clips), embedded(30, 3)
    scaler = StandardScaler().fit(train.numpy())
    model = KNeighborsClassifier(
        min(10, clips), metric="cosine", weights=lambda distance: 1 - distance / 2
    )
    model.fit(scaler.transform(train.numpy()), labels.numpy())
    expected = np.zeros((30, CLASSES))
    expected[:, model.classes_] = model.predict_proba(scaler.transform(queries.numpy()))
    found = NearestNeighbors(train, labels, CLASSES)(queries).exp().numpy()
    assert np.abs(found - expected).max() < 0.01 / 2  # the hundredth of a vote, of 2 votes or more
    assert found.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("clips", [1, 3, 30])
def test_a_row_is_a_distribution_over_all_classes(clips: int) -> None:
    rows = NearestNeighbors(embedded(clips, 0), labels_of(clips), CLASSES)(embedded(9, 1))
    assert rows.shape == (9, CLASSES)
    assert torch.isfinite(rows).all()
    assert_close(rows.exp().sum(dim=1), torch.ones(9))


def test_a_train_clip_is_found_again_among_strangers() -> None:
    train = embedded(200, 0, features=5)
    labels = torch.zeros(200, dtype=torch.long)
    labels[50:60] = 3
    train[50:60] = train[50] + 1e-3 * embedded(10, 1, features=5)
    rows = NearestNeighbors(train, labels, CLASSES)(train[[50, 59]])
    assert rows.argmax(dim=1).tolist() == [3, 3]


def test_scale_and_place_of_a_feature_do_not_matter() -> None:
    train, labels, queries = embedded(40, 0), labels_of(40), embedded(15, 1)
    factor, shift = torch.tensor([5.0, 0.1, 30.0, 1.0, 2.0, 0.5]), torch.tensor([1.0, -2.0] * 3)
    expected = NearestNeighbors(train, labels, CLASSES)(queries)
    moved = NearestNeighbors(train * factor + shift, labels, CLASSES)(queries * factor + shift)
    assert_close(moved, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("at_train", "at_query"),
    [
        (0.0, 0.0),
        (3.3, 3.3),  # the mean of 300 times 3.3 is not 3.3 in float32
        (-13.8155, -13.8155),  # a silent band of a log-mel
        (0.0, 1e-3),  # a unit that is dead on the train clips and hardly alive on a query
    ],
)
def test_a_feature_that_is_constant_on_the_train_clips_drowns_no_other(
    at_train: float, at_query: float
) -> None:
    train, labels, queries = embedded(300, 0), labels_of(300), embedded(15, 1)
    expected = NearestNeighbors(train, labels, CLASSES)(queries)
    longer = torch.cat([train, torch.full((300, 1), at_train)], dim=1)
    asked = torch.cat([queries, torch.full((15, 1), at_query)], dim=1)
    assert_close(NearestNeighbors(longer, labels, CLASSES)(asked), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_embeddings_of_any_precision_are_compared_in_float32(dtype: torch.dtype) -> None:
    head = NearestNeighbors(embedded(40, 0), labels_of(40), CLASSES)
    queries = embedded(5, 1).to(dtype)
    assert torch.equal(head(queries), head(queries.float()))


def test_the_train_embeddings_travel_with_the_state_dict() -> None:
    head = NearestNeighbors(embedded(40, 0), labels_of(40), CLASSES)
    empty = NearestNeighbors(torch.zeros(40, 6), torch.zeros(40, dtype=torch.long), CLASSES)
    empty.load_state_dict(head.state_dict())
    assert torch.equal(empty(embedded(5, 1)), head(embedded(5, 1)))


# --- layers of a projector --------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [[3, 5], [3, 5, 2], [3, 4, 4, 6]])
def test_a_projector_agrees_with_numpy_layer_by_layer(sizes: list[int], bias: bool) -> None:
    torch.manual_seed(0)
    head = mlp(sizes, bias=bias)
    x = torch.randn(7, sizes[0], generator=torch.Generator().manual_seed(1))
    found = head(x)
    given = [parameter.detach().double().numpy() for parameter in head.parameters()]
    z = x.double().numpy()
    for layer in range(len(sizes) - 1):
        z = z @ given.pop(0).T + (given.pop(0) if bias else 0)
        if layer < len(sizes) - 2:  # batch norm and ReLU stand between two layers alone
            z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
            z = np.maximum(z * given.pop(0) + given.pop(0), 0)
    assert given == []
    assert_close(found.double(), torch.from_numpy(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_every_layer_of_a_projector_has_a_bias_or_none_has(bias: bool) -> None:
    layers = [layer for layer in mlp([3, 4, 5, 6], bias=bias) if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(3, 4), (4, 5), (5, 6)]
    assert [layer.bias is not None for layer in layers] == [bias] * 3


def test_the_output_of_a_projector_is_not_cut_at_zero() -> None:
    torch.manual_seed(0)
    assert mlp([3, 4, 5])(torch.randn(9, 3)).min() < 0
