"""Tensors come back as they were; anything else is refused in words, and runs no code."""

import errno
import os
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.learning.training.checkpoints import load_strictly, load_tensors, save_tensors

CPU = torch.device("cpu")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.mkdir, (self.folder,)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


# --- files ------------------------------------------------------------------------------------------------


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    content = {
        "model": {"weight": torch.tensor([[1.5, float("nan")]]), "steps": torch.tensor(7)},
        "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "none": torch.zeros(0, 4),
        "epoch": 3,
        "best": None,
        "curve": [{"epoch": 1.0, "loss": 0.1 + 0.2}],
    }
    save_tensors(tmp_path / "a.pt", content)
    found = load_tensors(tmp_path / "a.pt", CPU)
    assert found.keys() == content.keys()
    assert_close(found["model"], content["model"], rtol=0, atol=0, equal_nan=True)
    for name in ("half", "none"):
        assert found[name].dtype == content[name].dtype
        assert torch.equal(found[name], content[name])
    assert [found[name] for name in ("epoch", "best", "curve")] == [3, None, content["curve"]]


def test_an_optimizer_and_its_memory_are_read_again(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    save_tensors(tmp_path / "a.pt", {"optimizer": optimizer.state_dict()})
    found = load_tensors(tmp_path / "a.pt", CPU)["optimizer"]
    assert found["param_groups"] == optimizer.state_dict()["param_groups"]
    assert_close(found["state"], optimizer.state_dict()["state"], rtol=0, atol=0)


def test_a_save_that_fails_leaves_the_file_before_it_and_no_other(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.pt", {"x": torch.ones(2)})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_tensors(tmp_path / "a.pt", {"x": torch.zeros(2), "y": lambda: None})
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert torch.equal(load_tensors(tmp_path / "a.pt", CPU)["x"], torch.ones(2))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, form: str
) -> None:
    path, made = tmp_path / "a.pt", tmp_path / "made"
    content = {"weight": torch.ones(2), "trap": Trap(made)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"trap": Trap(made)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match="could run code"):
        load_tensors(path, CPU, has_checksum=False)
    assert not made.exists()
    # The trap is a real one: whoever trusts the file springs it.
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert made.is_dir()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, part: float, form: str) -> None:
    path = tmp_path / "a.pt"
    torch.save({"x": torch.ones(50)}, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(UserError, match=r"checkpoint .*a\.pt"):
        load_tensors(path, CPU, has_checksum=False)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"not a checkpoint", b"PK\x03\x04", b"\x80\x02.", b"0", b"(", bytes(range(256))],
    ids=repr,
)
def test_nonsense_is_refused_by_name(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"checkpoint .*a\.pt"):
        load_tensors(path, CPU, has_checksum=False)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_noise_is_refused_by_name_whatever_its_bytes(tmp_path: Path) -> None:
    path, random = tmp_path / "a.pt", np.random.default_rng(0)
    for _ in range(200):
        path.write_bytes(random.bytes(int(random.integers(1, 60))))
        with pytest.raises(UserError, match=r"checkpoint .*a\.pt"):
            load_tensors(path, CPU, has_checksum=False)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.pt does not exist"):
        load_tensors(tmp_path / "a.pt", CPU)


def test_a_file_of_one_bare_tensor_is_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds a Tensor, not named tensors"):
        load_tensors(tmp_path / "a.pt", CPU, has_checksum=False)


def test_each_of_many_flipped_bits_is_noticed(tmp_path: Path) -> None:
    path, random = tmp_path / "a.pt", np.random.default_rng(0)
    save_tensors(path, {"x": torch.arange(50.0), "curve": [{"loss": 0.5}]})
    whole = path.read_bytes()
    for place in random.integers(0, 8 * len(whole), 100):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match=r"a\.pt is damaged"):
            load_tensors(path, CPU)
    path.write_bytes(whole)
    assert load_tensors(path, CPU)["curve"] == [{"loss": 0.5}]


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_file_of_ours_that_is_cut_off_or_has_lost_its_checksum_is_damaged(
    part: float, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    save_tensors(path, {"x": torch.ones(50)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DamagedFile):
        load_tensors(path, CPU)
    torch.save({"x": torch.ones(50)}, path)
    with pytest.raises(DamagedFile):
        load_tensors(path, CPU)
    assert_close(load_tensors(path, CPU, has_checksum=False)["x"], torch.ones(50))


def test_a_file_of_ours_is_one_that_torch_reads_and_damage_is_noticed_where_no_checksum_is_needed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.pt"
    save_tensors(path, {"x": torch.ones(5)})
    assert_close(torch.load(path, weights_only=True)["x"], torch.ones(5))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\x00\x00\x80\x3f", b"\x00\x00\x80\x3e", 1))
    assert path.read_bytes() != whole
    with pytest.raises(DamagedFile):
        load_tensors(path, CPU, has_checksum=False)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_full_disk_is_named(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tensors(tmp_path / "a.pt", {"x": torch.ones(5)})

    def write(content: object, file: BinaryIO) -> None:
        try:
            raise OSError(code, os.strerror(code))
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")  # as torch's writer ends

    monkeypatch.setattr(torch, "save", write)
    with pytest.raises(UserError, match=r"the disk that holds .*a\.pt is full"):
        save_tensors(tmp_path / "a.pt", {"x": torch.zeros(5)})
    monkeypatch.undo()
    assert_close(load_tensors(tmp_path / "a.pt", CPU)["x"], torch.ones(5))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


# --- modules ----------------------------------------------------------------------------------------------


def test_a_module_is_filled_to_the_last_tensor() -> None:
    torch.manual_seed(0)
    one, other = net(), net()
    one(torch.randn(5, 3))  # so that the batch norm has statistics
    load_strictly(other, one.state_dict(), "here")
    assert_close(dict(other.state_dict()), dict(one.state_dict()), rtol=0, atol=0)


def without(tensors: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: without(t, "0.bias"), "0.bias is missing"),
        (lambda t: without(t, "1.running_mean"), "1.running_mean is missing"),
        (lambda t: {**t, "3.bias": torch.ones(1)}, "3.bias is not part of it"),
        (
            lambda t: {**t, "0.weight": torch.ones(2, 4)},
            r"0.weight has shape \(2, 4\) instead of \(2, 3\)",
        ),
        (
            lambda t: {**without(t, "0.bias"), "0.offset": torch.ones(2)},
            "0.bias is missing, 0.offset is not part of it",
        ),
        (lambda t: without(t, *list(t)[:5]), "0.weight is missing.* and 2 more"),
        (lambda t: {**t, "0.bias": 3.0}, r"0\.bias"),
        (lambda t: None, "0.weight is missing"),
        (lambda t: t["0.weight"], "0.weight is missing"),
    ],
    ids=["missing", "buffer", "left over", "shape", "renamed", "many", "number", "none", "tensor"],
)
def test_a_tensor_that_does_not_fit_is_named_and_nothing_is_filled(change: Any, said: str) -> None:
    torch.manual_seed(0)
    module, given = net(), net().state_dict()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UserError, match=said) as refusal:
        load_strictly(module, change(dict(given)), "the encoder in a.pt")
    assert str(refusal.value).startswith("the encoder in a.pt does not match the model")
    assert_close(dict(module.state_dict()), before, rtol=0, atol=0)
