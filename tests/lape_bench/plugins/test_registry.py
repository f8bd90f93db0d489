import random
import sys
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from lape_bench.core.errors import UserError
from lape_bench.evaluation.plan import load_system
from lape_bench.plugins import registry
from lape_bench.plugins.registry import SYSTEMS, TASKS, Registry


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is importable; modules in it are a stranger's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def register(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> Registry:
    def registered(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
        return tuple(point for point in points if point.group == group)

    monkeypatch.setattr(registry, "registered", registered)
    return Registry("group", "system")


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match="no system 'supervized': did you mean 'supervised'"):
        SYSTEMS.entry("supervized")
    with pytest.raises(UserError, match="no task 'esc-10': did you mean 'esc10'"):
        TASKS.entry("esc-10")


def test_a_file_that_is_named_in_another_way_gets_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"name its class too: enc\.py:MyEncoder"):
        SYSTEMS.entry("enc.py:")
    with pytest.raises(UserError, match=r"name its class too: enc\.py:Mine"):
        SYSTEMS.entry("enc.py::Mine")
    with pytest.raises(UserError, match="'bench systems' lists them"):
        SYSTEMS.entry("enc:Mine")
    Path("enc.py").touch()
    with pytest.raises(UserError, match=r"if it is the file enc\.py, write enc\.py:Mine"):
        SYSTEMS.entry("enc:Mine")


SETS_DEFAULTS = """
import torch
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
class A: pass
"""


@pytest.mark.parametrize("ends_in", ["", "raise ValueError"])
def test_a_plug_in_changes_no_default_of_torch(
    ends_in: str, plug_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"defaults_{len(ends_in)}"
    (plug_ins / f"{module}.py").write_text(SETS_DEFAULTS + ends_in)
    systems = register(monkeypatch, EntryPoint("mine", f"{module}:A", "group"))
    for name in ("mine", f"{plug_ins / module}.py:A"):
        with suppress(UserError):
            systems.load(name, lambda loaded: True, "anything")
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()


def test_two_packages_with_one_name_are_refused_and_both_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = register(
        monkeypatch, EntryPoint("mine", "one:A", "group"), EntryPoint("mine", "two:B", "group")
    )
    assert both.names() == ["mine"]
    with pytest.raises(UserError, match=r"one:A.*two:B.*rename"):
        both.entry("mine")


def test_a_plug_in_that_fails_to_import_is_named_and_listed_all_the_same(
    plug_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plug_ins / "broken_plug_in.py").write_text('"""A fine idea."""\nimport not_there\n')
    broken = register(monkeypatch, EntryPoint("mine", "broken_plug_in:A", "group"))
    assert broken.summary("mine") == "A fine idea."
    with pytest.raises(
        UserError, match=r"'mine'.*ModuleNotFoundError: No module named 'not_there'"
    ):
        broken.load("mine", lambda loaded: True, "anything")


def test_a_plug_in_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = register(monkeypatch, EntryPoint("mine", "json:dumps", "group"))
    with pytest.raises(UserError, match="json:dumps is not a class derived from System"):
        wrong.load("mine", lambda loaded: False, "a class derived from System")


def test_a_module_that_is_gone_does_not_break_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = register(monkeypatch, EntryPoint("mine", "gone.for.good:A", "group"))
    with pytest.raises(UserError, match=r"a module that does not exist, gone\.for\.good; fix"):
        gone.yaml_file("mine", "card")
    assert "was not found" in gone.summary("mine")


def test_a_summary_is_read_without_importing() -> None:
    sys.modules.pop("lape_bench.baselines.supervised", None)
    assert SYSTEMS.summary("supervised").startswith("AudioNTT from random weights")
    assert "lape_bench.baselines.supervised" not in sys.modules


ADAPTERS = {"checkpoint", "hear", "hf", "torchaudio"}


@pytest.mark.parametrize("name", SYSTEMS.names())
def test_every_registered_system_loads_with_a_summary_that_says_if_it_takes_an_argument(
    name: str,
) -> None:
    assert len(SYSTEMS.summary(name)) > 20
    if name not in ADAPTERS:
        assert load_system(name).protocols
        return
    with pytest.raises(UserError, match=f"'{name}' needs an argument; {name}:"):
        load_system(name)


def test_a_name_with_an_argument_is_the_class_that_it_binds(
    plug_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plug_ins / "many.py").write_text(
        '"""mine:PLACE: anything."""\nclass A:\n    from_argument = classmethod(lambda kind, place: (kind, place))\n'
    )
    mine = register(monkeypatch, EntryPoint("mine", "many:A", "group"))
    kind, place = mine.load("mine:a/place@b:c.pt", callable, "anything")
    assert (kind.__name__, place) == ("A", "a/place@b:c.pt")
    assert mine.summary("mine:a/place") == "mine:PLACE: anything."
    for name in ("mine", "mine:"):
        with pytest.raises(UserError, match=r"'mine' needs an argument; mine:PLACE: anything"):
            mine.load(name, callable, "anything")


def test_an_argument_that_is_not_asked_for_is_refused() -> None:
    with pytest.raises(UserError, match=r"'supervised' takes no argument, but is given 'x/y.pt'"):
        load_system("supervised:x/y.pt")
    with pytest.raises(UserError, match="no system 'supervized': did you mean 'supervised'"):
        load_system("supervized:x")


DRAWS = """
import random
import numpy
import torch
class A: drawn = (random.random(), numpy.random.rand(), torch.rand(1).item())
"""


def test_a_file_draws_the_same_numbers_whatever_was_drawn_before_its_import(plug_ins: Path) -> None:
    found = []
    for seed, name in enumerate(("drawn_first", "drawn_second")):
        (plug_ins / f"{name}.py").write_text(DRAWS)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        kind = Registry("group", "system").load(f"{plug_ins / name}.py:A", bool, "anything")
        found.append(kind.drawn)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
        assert torch.equal(torch.get_rng_state(), before[2])
    assert found[0] == found[1]
