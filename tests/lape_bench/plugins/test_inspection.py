from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lape_bench.plugins.inspection import visible_fault
from lape_bench.plugins.registry import SYSTEMS, TASKS


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def fault(value: str) -> str:
    return visible_fault(EntryPoint("mine", value, "group"))


def test_no_plug_in_of_the_project_has_a_fault() -> None:
    faults = {
        name: visible_fault(each.entry(name)) for each in (SYSTEMS, TASKS) for name in each.names()
    }
    assert not [name for name, said in faults.items() if said]


@pytest.mark.parametrize(
    "code",
    [
        "class Mine: ...",
        "from json import dumps as Mine",
        "Mine = print",
        "if True:\n    class Mine: ...",
        "from json import *",
        "def __getattr__(name): ...",
        "try:\n    import not_there\nexcept ImportError:\n    pass\nclass Mine: ...",
        "def late():\n    import not_there\nclass Mine: ...",
    ],
)
def test_a_module_that_may_define_the_name_has_no_fault(code: str, plug_ins: Path) -> None:
    (plug_ins / "fair.py").write_text(code)
    assert fault("fair:Mine") == ""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Yours: ...", "faulty defines no 'Mine'"),
        ("import not_there.deep as x\nclass Mine: ...", "faulty imports 'not_there', which is not"),
        ("from not_there import Mine", "faulty imports 'not_there', which is not installed"),
        ("def", "faulty.py cannot be read: invalid syntax"),
        ("x = '\0'", "faulty.py cannot be read"),
    ],
)
def test_a_fault_is_seen_without_importing(code: str, said: str, plug_ins: Path) -> None:
    (plug_ins / "faulty.py").write_text(f"{code}\nraise RuntimeError('it was imported')\n")
    assert fault("faulty:Mine").startswith(said)


def test_an_entry_point_without_a_class_or_in_another_encoding_breaks_nothing(
    plug_ins: Path,
) -> None:
    assert fault("json") == "'json' is not of the form 'module:Class'"
    code = "# -*- coding: latin-1 -*-\nname = 'M\xfcller'\nclass Mine: ...\n"
    (plug_ins / "accented.py").write_bytes(code.encode("latin-1"))
    assert fault("accented:Mine") == ""


def test_what_is_compiled_or_built_in_is_not_doubted() -> None:
    assert fault("_json:anything") == ""
    assert fault("sys:anything") == ""
