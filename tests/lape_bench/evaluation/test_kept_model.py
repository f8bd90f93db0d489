import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import lape_bench as lb
from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import load_manifest
from lape_bench.evaluation import kept_model
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import read_record, write_record


class Energy(nn.Module):
    """Energies of four filters."""

    embedding_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 4, 64, stride=32)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.filters(waveforms.unsqueeze(1)).abs().mean(dim=2)
        return embeddings


class Chosen(nn.Module):
    """Energies of random frequency bins, whose numbers no tensor holds."""

    embedding_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.bins = torch.randperm(400)[:8].tolist()

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(waveforms[:, :1024]).abs()[:, self.bins]


def kept(
    tmp_path: Path,
    system: str | type = "log-mel-statistics",
    protocol: str = "linear",
    **options: object,
) -> Path:
    """Run one cell and keep its model; returns the cell's folder."""
    results = lb.evaluate(
        system,
        "synthetic-sounds",
        protocol=protocol,
        out=tmp_path / "results",
        keep_model=True,
        **options,  # type: ignore[arg-type]  # of any option
    )
    assert results.problems == []
    return results.folders[0]


@pytest.mark.parametrize(
    ("system", "protocol"),
    [("log-mel-statistics", "linear"), ("log-mel-statistics", "mlp"), (Chosen, "linear")],
)
def test_the_files_of_the_test_split_get_the_predictions_of_the_run(
    own_artifacts: Path, tmp_path: Path, system: str | type, protocol: str
) -> None:
    few_fits = {"mlp": {"hidden": 32, "min_steps": 10, "learning_rates": [3.2e-3]}}
    folder = kept(tmp_path, system, protocol, settings=few_fits)
    predictions = read_predictions(folder, read_record(folder))
    manifest = load_manifest(load_card("synthetic-sounds"))
    path_of = dict(zip(manifest.clips["clip_id"], manifest.clips["path"], strict=True))
    ids = predictions.clip_ids.to_pylist()[:70]  # more than one chunk
    table = lb.predict(folder, [manifest.root / path_of[clip] for clip in ids], all_classes=True)
    names = [predictions.classes[index] for index in predictions.predicted[:70]]
    assert table["predicted"].tolist() == names
    probabilities = table[[f"P({name})" for name in predictions.classes]].to_numpy()
    expected = np.exp(predictions.log_probabilities[:70].astype(np.float64))
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    np.testing.assert_allclose(table["probability"], probabilities.max(axis=1))


def test_audio_of_any_rate_and_number_of_channels_is_taken_and_a_bad_file_is_named(
    own_artifacts: Path, tmp_path: Path, write_clip: Callable[..., Path]
) -> None:
    folder = kept(tmp_path)
    noise = np.random.default_rng(0).normal(0, 0.1, (44_100, 2))
    soundfile.write(tmp_path / "stereo.wav", noise, 44_100)
    (tmp_path / "notes.wav").write_text("no audio")
    files = [tmp_path / "stereo.wav", tmp_path / "notes.wav", write_clip(tmp_path / "slow.flac")]
    table = lb.predict(folder / "model", files)
    assert table["file"].tolist() == [str(file) for file in files]
    assert table["problem"].isna().tolist() == [True, False, True]
    assert "looks like text" in table["problem"][1]
    assert table["predicted"][1] is None
    assert math.isnan(table["probability"][1])
    assert set(table["predicted"][[0, 2]]) <= set(load_card("synthetic-sounds").classes)


def test_files_are_scaled_to_the_level_of_the_clips_of_the_task(
    own_artifacts: Path, tmp_path: Path
) -> None:
    folder = kept(tmp_path)
    record = read_record(folder)
    assert record.task is not None
    leveled = record.task.model_copy(update={"level_dbfs": -26.0})
    write_record(folder, record.model_copy(update={"task": leveled}))
    noise = np.random.default_rng(0).normal(0, 0.02, 16_000)
    soundfile.write(tmp_path / "loud.wav", noise, 16_000, "FLOAT")
    soundfile.write(tmp_path / "soft.wav", noise / 8, 16_000, "FLOAT")
    files = [tmp_path / "loud.wav", tmp_path / "soft.wav"]
    table = lb.predict(folder, files, all_classes=True)
    loud, soft = table.filter(like="P(").to_numpy()
    np.testing.assert_allclose(loud, soft, atol=1e-4)


def test_a_file_gets_the_same_answer_whatever_stands_beside_it(
    own_artifacts: Path, tmp_path: Path, write_clip: Callable[..., Path]
) -> None:
    folder = kept(tmp_path)
    files = [write_clip(tmp_path / f"{seed}.wav", seed) for seed in range(3)]
    together, alone = lb.predict(folder, files), lb.predict(str(folder / "record.json"), files[1])
    assert alone["predicted"][0] == together["predicted"][1]
    assert alone["probability"][0] == pytest.approx(together["probability"][1], abs=1e-5)


def test_only_unreadable_files_give_a_table_of_problems(
    own_artifacts: Path, tmp_path: Path
) -> None:
    table = lb.predict(kept(tmp_path), tmp_path / "missing.wav")
    assert table["problem"].tolist() == ["cannot be read (No such file or directory)"]


def test_a_model_of_other_code_is_refused_unless_forced(
    own_artifacts: Path, tmp_path: Path, write_clip: Callable[..., Path]
) -> None:
    folder, clip = kept(tmp_path), write_clip(tmp_path / "clip.wav")
    record = read_record(folder)
    changed = {"system_version": 99, "provenance": {"weights": "SHA-256 of others"}}
    write_record(folder, record.model_copy(update=changed))
    refusal = r"other code or weights: version 99 of log-mel-statistics, here 1; weights was SHA-256 of others"
    with pytest.raises(UserError, match=refusal):
        lb.predict(folder, clip)
    assert lb.predict(folder, clip, force=True)["problem"].isna().all()


def test_a_model_of_a_notebook_class_needs_the_class_and_its_source(
    own_artifacts: Path, tmp_path: Path, write_clip: Callable[..., Path]
) -> None:
    folder, clip = kept(tmp_path, Energy), write_clip(tmp_path / "clip.wav", rate=16_000)
    first = lb.predict(folder, clip)
    SYSTEMS._classes.clear()  # another process
    with pytest.raises(UserError, match=r"define it and call predict\(\.\.\., system=Energy\)"):
        lb.predict(folder, clip)
    assert lb.predict(folder, clip, system=Energy).equals(first)

    class Other(Energy):
        pass

    with pytest.raises(UserError, match=r"the model in .* is of Energy, not of Other"):
        lb.predict(folder, clip, system=Other)
    Other.__name__ = "Energy"
    with pytest.raises(UserError, match="other code or weights: source was class Energy"):
        lb.predict(folder, clip, system=Other)


def test_what_is_no_kept_model_is_refused_in_a_sentence(
    own_artifacts: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        lb.predict(tmp_path / "nowhere", "a.wav")
    folder = kept(tmp_path)
    with pytest.raises(UserError, match="no file is given"):
        lb.predict(folder, [])
    shutil.rmtree(folder / kept_model.MODEL)
    with pytest.raises(UserError, match=r"holds no kept model;.*; run its cell again"):
        lb.predict(folder, "a.wav")


def test_a_damaged_model_is_refused_and_a_run_that_keeps_models_makes_it_again(
    synthetic: Path, tmp_path: Path
) -> None:
    folder = kept(tmp_path)
    weights = next((folder / "model").glob("*.pt"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-70] + bytes([whole[-70] ^ 1]) + whole[-69:])
    with pytest.raises(DamagedFile, match=r"the kept model is damaged: .*\.pt is damaged"):
        lb.predict(folder, "any.wav")
    kept(tmp_path)
    assert weights.read_bytes() == whole
