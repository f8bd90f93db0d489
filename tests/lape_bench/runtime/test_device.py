"""A device, a precision or a number of threads that does not exist is refused in one sentence."""

import pytest

from lape_bench.core.errors import UserError
from lape_bench.runtime.device import Compute


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "auto:1"}, "there is no device 'auto:1'"),
        ({"device": "cpu:3"}, "there is no device 'cpu:3'"),
        ({"device": "cuda:x"}, "there is no device 'cuda:x'.*known: auto, cpu, cuda, cuda:N"),
        ({"device": "cuda:99"}, "this machine has no device 'cuda:99' that torch can use"),
        ({"precision": "fp16"}, "there is no precision 'fp16': did you mean 'bf16'"),
        ({"threads": 0}, "the number of threads is 0; 1 or more"),
        ({"threads": -1}, "the number of threads is -1; 1 or more"),
    ],
    ids=str,
)
def test_a_device_precision_or_number_of_threads_that_does_not_exist_is_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Compute.model_validate(settings).resolve()
