"""Packages of strangers, installed as they are anywhere: one that works, and all the ways in which they break."""

import json
from pathlib import Path

import pytest

from lape_bench.plugins.registry import SYSTEMS
from tests.conftest import own_home
from tests.environments import Environment, make_environment

# Several commands in one process, which imports torch once; their outputs, and the reasons why systems cannot be loaded.
PROGRAM = """
import contextlib, io, json, sys
from lape_bench.cli.app import main
from lape_bench.core.errors import UserError
from lape_bench.evaluation.plan import load_system

names, commands = json.loads(sys.argv[1])
reasons, outputs = {}, []
for name in names:
    try:
        load_system(name)
    except UserError as error:
        reasons[name] = str(error)
for command in commands:
    sys.argv = ["bench", *command]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
    outputs.append(output.getvalue())
print(json.dumps([reasons, outputs]))
"""
MODULES = {
    "raises.py": '"""A fine idea."""\nraise RuntimeError("out of luck")\n',
    "needs.py": '"""Another."""\nimport not_there\n',
    "garbled.py": "class (\n",
    "leaves.py": '"""Leaves."""\nimport sys\nsys.exit(3)\n',
    "fails/__init__.py": 'raise RuntimeError("not today")\n',
    "fails/system.py": '"""Cannot be reached."""\nclass System: ...\n',
    "quits/__init__.py": "import sys\nsys.exit(3)\n",
    "quits/system.py": '"""Cannot be reached."""\nclass System: ...\n',
    "other.py": '"""No system at all."""\nclass Thing: ...\nnumber = 3\n',
}
BROKEN = {
    "b-raises": "raises:System",
    "b-needs": "needs:System",
    "b-garbled": "garbled:System",
    "b-leaves": "leaves:System",
    "b-fails": "fails.system:System",
    "b-quits": "quits.system:System",
    "b-gone": "gone.for.good:System",
    "b-absent": "other:System",
    "b-number": "other:number",
    "b-thing": "other:Thing",
    "b-nothing": "no module at all",
}


def in_one_process(
    environment: Environment, folder: Path, names: list[str], *commands: list[str]
) -> tuple[dict[str, str], list[str]]:
    """Load systems and run commands of `bench` in one process.

    Returns:
        Why each system that cannot be loaded cannot, by name; and the output of each command.
    """
    asked = json.dumps([names, commands])
    reasons, outputs = json.loads(environment.succeed("python", "-c", PROGRAM, asked, cwd=folder))
    return reasons, outputs


@pytest.fixture(scope="module")
def broken(synthetic_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with a package of broken systems, and two packages that register one name."""
    folder = tmp_path_factory.mktemp("broken")
    environment = make_environment(folder / "env", own_home(folder / "cache", synthetic_home))
    for name, text in MODULES.items():
        path = environment.site_packages / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    environment.register("broken", BROKEN)
    environment.register("one", {"b-twice": "raises:System"})
    environment.register("two", {"b-twice": "needs:System"})
    environment.register("thief", {"supervised": "other:Thing"})
    return environment


@pytest.mark.slow
def test_an_installed_package_is_found_checked_run_and_shown_on_the_board(
    own_artifacts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pip")
    environment = make_environment(tmp_path / "env", own_artifacts)
    environment.succeed("bench", "systems", "new", "my-encoder", cwd=tmp_path)
    environment.succeed("pip", "install", str(tmp_path / "my-encoder"), cwd=tmp_path)
    assert list(environment.site_packages.glob("my_encoder-*.dist-info/entry_points.txt"))
    assert "my-encoder" not in SYSTEMS.names(), "the environment of the tests stays as it was"
    how = ["--system", "my-encoder", "--task", "synthetic-sounds", "--protocol", "linear", "-q"]
    _, (listing, checked, ran, board) = in_one_process(
        environment,
        tmp_path,
        [],
        ["systems"],
        ["systems", "check", "my-encoder", "-q"],
        ["run", *how, "--set", "width=16"],
        ["report"],
    )
    assert "my-encoder" in listing
    assert "A small convolutional encoder" in listing
    assert "my-encoder keeps the contract" in checked
    assert board == ran
    assert "my-encoder (width=16)" in board
    (record,) = (tmp_path / "results").rglob("record.json")
    facts = json.loads(record.read_text())
    assert facts["environment"]["system_package"] == "package my-encoder 0.1.0"
    assert facts["metrics"]["accuracy"] > 1 / 8


def test_broken_plug_ins_do_not_break_the_listing(broken: Environment, tmp_path: Path) -> None:
    done = broken.run("bench", "systems", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert {*BROKEN, *SYSTEMS.names()} <= set(rows)
    summaries = {
        "b-needs": "Another.",
        "b-garbled": "(garbled.py of package broken 1.0 cannot be read: ",
        "b-fails": "(module fails.system of package broken 1.0 was not found)",
        "b-quits": "(module quits.system of package broken 1.0 was not found)",
        "b-gone": "(module gone.for.good of package broken 1.0 was not found)",
        "b-nothing": "(module no module at all of package broken 1.0 was not found)",
    }
    for name, summary in summaries.items():
        assert summary in rows[name], rows[name]
    assert "package one 1.0 (raises:System)" in rows["b-twice"]
    assert "package two 1.0 (needs:System)" in rows["b-twice"]
    assert "package thief 1.0 (other:Thing)" in rows["supervised"]
    assert "log-mel spectrogram" in rows["log-mel-statistics"]


def test_broken_plug_ins_give_their_reason_in_one_sentence_and_other_systems_run_beside_them(
    broken: Environment, tmp_path: Path
) -> None:
    names = [*BROKEN, "b-twice", "supervised"]
    how = ["--system", "log-mel-statistics", "--task", "synthetic-sounds", "--quiet"]
    reasons, (board,) = in_one_process(broken, tmp_path, names, ["run", *how])
    assert set(reasons) == set(names)
    assert not [text for text in reasons.values() if "\n" in text]
    assert not [name for name in BROKEN if "package broken 1.0" not in reasons[name]]
    assert "raises:System raised RuntimeError: out of luck" in reasons["b-raises"]
    assert "raised SystemExit: 3; fix or uninstall package broken 1.0" in reasons["b-leaves"]
    assert "other:number is not a class derived from" in reasons["b-number"]
    assert "other:Thing is not a class derived from" in reasons["b-thing"]
    assert "uninstall all but one" in reasons["supervised"]
    assert "log-mel-statistics" in board
