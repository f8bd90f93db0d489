"""Embeddings of plug-ins are checked before they are used."""

import numpy as np
import pytest
import torch

from lape_bench.core.errors import UserError
from lape_bench.learning.encoders.base import check_embeddings


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_real_embeddings_of_every_type_become_float32(kind: torch.dtype) -> None:
    output = torch.arange(6).reshape(2, 3).to(kind)
    checked = check_embeddings(output, (2, 3), "it")
    assert checked.dtype == torch.float32
    assert checked.flatten().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.zeros((2, 3)), r"a ndarray; .*; return torch\.from_numpy"),
        (
            (torch.zeros(2, 3),),
            r"a tuple; a tensor of shape \(2, 3\), \(batch, embedding_size\)\.$",
        ),
        (torch.zeros(2, 3, dtype=torch.complex64), "complex numbers; real numbers; return their"),
        (torch.zeros(3), r"shape \(3,\); .*; leave out squeeze"),
        (torch.zeros(2, 3, 4), "pool over time"),
        (torch.zeros(2, 4), "make embedding_size the number that it gives"),
    ],
    ids=["NumPy", "a tuple", "complex", "squeezed", "frames", "another size"],
)
def test_other_outputs_are_refused_with_the_usual_remedy(output: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_embeddings(output, (2, 3), "it")
