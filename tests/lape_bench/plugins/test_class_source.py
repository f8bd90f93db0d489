import ast
import linecache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lape_bench.core.errors import UserError
from lape_bench.evaluation.plan import load_system
from lape_bench.plugins.class_source import SourceNotFound, source_of
from lape_bench.plugins.registry import SYSTEMS, Registry
from lape_bench.plugins.single_file import class_code

ENCODER = """
from torch import nn

GAIN = 2

def amplify(waveforms):
    return GAIN * waveforms

class MyEncoder(nn.Module):
    embedding_size = 1

    def forward(self, waveforms):
        return amplify(waveforms).mean(dim=1, keepdim=True)
"""


def run_cell(text: str, number: int = 1, **names: Any) -> dict[str, Any]:
    """Run text as a notebook's cell does: the lines are known to linecache, and there is no file."""
    file = f"/tmp/ipykernel_1/{number}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": "__main__"} | names
    exec(compile(text, file, "exec"), namespace)
    return namespace


def source(text: str, number: int = 1) -> str:
    return source_of(run_cell(text, number)["MyEncoder"])


def test_the_source_of_a_notebook_class_is_the_same_in_every_cell() -> None:
    assert source(ENCODER) == source(f"# moved down\n\n{ENCODER}", 2)
    assert "return amplify(waveforms).mean" in source(ENCODER)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("mean(dim=1", "sum(dim=1"),
        ("GAIN * waveforms", "GAIN * waveforms.abs()"),
        ("GAIN = 2", "GAIN = 3"),
        ("embedding_size = 1", "embedding_size = 1; stride = 7"),
    ],
    ids=["the class", "a function", "a constant", "a class attribute"],
)
def test_what_the_class_uses_is_part_of_its_source(before: str, after: str) -> None:
    assert source(ENCODER) != source(ENCODER.replace(before, after))


USES_MUCH = """
from functools import cache, partial, wraps
from torch.nn.functional import gelu, relu

LOUD, QUIET = 2, 1
activation = relu

def scaled(method):
    @wraps(method)
    def inner(self, waveforms):
        return 10 * method(self, waveforms)
    return inner

@cache
def offset():
    return 5

def add(waveforms, number=LOUD):
    return waveforms + number

def subtract(waveforms, number=QUIET):
    return waveforms - number

add_three = partial(add, number=3)
square = lambda x: x * x
double = lambda x: x + x
steps = [square, double]

class Filter:
    def __init__(self, gain):
        self.gain = gain

    def apply(self, waveforms):
        return self.gain * waveforms

front_end = Filter(7)

class MyEncoder:
    embedding_size = 1

    @scaled
    def __call__(self, waveforms):
        for step in steps:
            waveforms = step(waveforms)
        waveforms = activation(add(add_three(subtract(waveforms)))) + offset()
        return front_end.apply(waveforms).mean(dim=1, keepdim=True)
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("10 * method", "11 * method"),
        ("return 5", "return 6"),
        ("LOUD, QUIET = 2, 1", "LOUD, QUIET = 3, 1"),
        ("LOUD, QUIET = 2, 1", "LOUD, QUIET = 2, 3"),
        ("number=3", "number=4"),
        ("x * x", "x * x * x"),
        ("x + x", "x + x + x"),
        ("[square, double]", "[double]"),
        ("Filter(7)", "Filter(8)"),
        ("self.gain * waveforms", "self.gain + waveforms"),
        ("activation = relu", "activation = gelu"),
    ],
    ids=[
        "a decorator", "a cached function", "a default", "another default", "a partial function", "a lambda",
        "another lambda", "a list of functions", "an object", "a class of an object", "an installed function",
    ],
)  # fmt: skip
def test_what_the_class_uses_indirectly_is_part_of_its_source(before: str, after: str) -> None:
    assert source(USES_MUCH) == source(USES_MUCH)
    assert source(USES_MUCH) != source(USES_MUCH.replace(before, after))


def test_a_dataclass_has_a_source_with_its_fields() -> None:
    text = """
from dataclasses import dataclass, field

@dataclass
class MyEncoder:
    width: int = 64
    bands: list = field(default_factory=lambda: [40])
    embedding_size: int = 1

    def __call__(self, waveforms):
        return waveforms
"""
    assert source(text) == source(text)
    assert source(text) != source(text.replace("[40]", "[80]"))


def test_what_the_class_does_not_use_is_no_part_of_its_source() -> None:
    assert source(ENCODER) == source(f"{ENCODER}\nSEEDS = 3\ndef plot(results): ...\n")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.ones(3), torch.full((3,), 2.0)),
        (torch.ones(3, dtype=torch.bfloat16), torch.full((3,), 2, dtype=torch.bfloat16)),
        (torch.ones(3, dtype=torch.double), torch.ones(3, dtype=torch.double) + 1e-12),
        (torch.ones(3, dtype=torch.complex64), torch.full((3,), 1 + 1j)),
        (torch.ones(3), torch.ones(3, dtype=torch.double)),
        (np.ones(3), np.full(3, 2.0)),
        (torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)),
    ],
    ids=["float", "bfloat16", "double", "complex", "another type", "NumPy", "module"],
)
def test_an_array_that_the_class_uses_is_part_of_its_source(one: Any, other: Any) -> None:
    text = ENCODER.replace("GAIN = 2", "")
    assert source_of(run_cell(text, GAIN=one)["MyEncoder"]) != source_of(
        run_cell(text, GAIN=other)["MyEncoder"]
    )


def test_a_base_class_of_the_notebook_is_part_of_its_source() -> None:
    text = ENCODER + "\nclass Wider(MyEncoder):\n    def width(self):\n        return 3\n"
    wider = [
        source_of(run_cell(each)["Wider"]) for each in (text, text.replace("mean(dim", "sum(dim"))
    ]
    assert wider[0] != wider[1]


def test_a_class_of_attributes_alone_is_known_by_them() -> None:
    sources = [
        source_of(
            run_cell(f"{ENCODER}\nclass Wider(MyEncoder):\n    embedding_size = {size}\n")["Wider"]
        )
        for size in (2, 2, 3)
    ]
    assert sources[0] == sources[1] != sources[2]


def test_a_function_that_a_class_takes_from_outside_is_part_of_its_source() -> None:
    text = ENCODER + "\nclass Taken(nn.Module):\n    embedding_size = 1\n    forward = amplify\n"
    assert "return GAIN * waveforms" in source_of(run_cell(text)["Taken"])


def test_a_cell_that_is_run_statement_by_statement_has_a_source() -> None:
    file = "/tmp/ipykernel_1/by_statement.py"
    text = ENCODER.replace(
        "embedding_size = 1", "embedding_size = 1\n    front = lambda self: nn.Linear(1, 1)"
    )
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for statement in ast.parse(text).body:  # as IPython does
        exec(compile(ast.Module([statement], []), file, "exec"), namespace)
    assert source_of(namespace["MyEncoder"]) == source(text)


def test_code_made_by_exec_has_no_source() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(ENCODER, namespace)
    with pytest.raises(SourceNotFound, match="MyEncoder"):
        source_of(namespace["MyEncoder"])


def test_a_class_that_uses_a_list_that_holds_itself_has_no_source() -> None:
    endless: list[Any] = []
    endless.append(endless)
    text = ENCODER.replace("GAIN = 2", "")
    with pytest.raises(SourceNotFound, match="GAIN"):
        source_of(run_cell(text, GAIN=endless)["MyEncoder"])


def test_a_file_that_has_changed_since_its_import_has_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "changing_encoder.py"
    file.write_text(ENCODER)
    monkeypatch.syspath_prepend(str(tmp_path))
    import changing_encoder  # type: ignore[import-not-found]  # written above

    assert "amplify" in source_of(changing_encoder.MyEncoder)
    file.write_text(ENCODER.replace("mean(dim=1", "sum(dim=1"))
    linecache.checkcache(str(file))
    with pytest.raises(SourceNotFound):
        source_of(changing_encoder.MyEncoder)


def test_a_module_beside_a_script_is_part_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = []
    for gain in (1, 2):
        file = tmp_path / "front_end.py"
        file.write_text(f"def amplify(waveforms): return {gain} * waveforms\n")
        module = ModuleType("front_end")
        module.__file__ = str(file)
        text = ENCODER.replace("amplify(waveforms).mean", "front_end.amplify(waveforms).mean")
        sources.append(source_of(run_cell(text, front_end=module)["MyEncoder"]))
    assert sources[0] != sources[1]


def test_a_registered_class_is_found_by_its_name_and_says_what_its_code_is() -> None:
    kind = run_cell(ENCODER)["MyEncoder"]
    assert SYSTEMS.register_class(kind) == "MyEncoder"
    system = load_system("MyEncoder")
    origin = SYSTEMS.origin("MyEncoder")
    assert origin.startswith("class MyEncoder, SHA-256 ")
    assert SYSTEMS.provenance("MyEncoder") == {"source": origin}
    assert class_code(system) == class_code(kind) == [origin]
    SYSTEMS.register_class(run_cell(ENCODER.replace("GAIN = 2", "GAIN = 3"))["MyEncoder"])
    assert SYSTEMS.origin("MyEncoder") != origin


def test_two_classes_without_source_are_never_one() -> None:
    origins = []
    for _ in range(2):
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(ENCODER, namespace)
        SYSTEMS.register_class(namespace["MyEncoder"])
        origins.append(SYSTEMS.origin("MyEncoder"))
        SYSTEMS.register_class(namespace["MyEncoder"])  # the same class again is itself
        assert SYSTEMS.origin("MyEncoder") == origins[-1]
        assert not SYSTEMS.has_source("MyEncoder")
    assert origins[0] != origins[1]
    assert "is not known" in origins[0]


def test_a_class_that_a_package_registers_keeps_that_name_and_others_may_not_take_it() -> None:
    supervised = SYSTEMS.entry("supervised").load()
    assert SYSTEMS.register_class(supervised) == "supervised"
    with pytest.raises(UserError, match=r"the name of a registered system; rename the class"):
        SYSTEMS.register_class(type("supervised", (), {}))


def test_a_decorated_method_is_read_through_its_decorator() -> None:
    text = """
import functools

def noted(method):
    @functools.wraps(method)
    def inner(*arguments):
        return method(*arguments)
    return inner

class MyEncoder:
    embedding_size = 1

    @noted
    def __call__(self, waveforms):
        return waveforms
"""
    assert "@noted" in source(text)


def test_a_registry_of_tasks_knows_no_class_of_a_system() -> None:
    SYSTEMS.register_class(run_cell(ENCODER)["MyEncoder"])
    assert Registry("lape_bench.tasks", "task").provenance("MyEncoder") == {}
