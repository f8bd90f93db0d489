"""A linear probe of a frozen random AudioNTT as people write it by hand: a DataLoader, torchaudio and scikit-learn.

    python -m tests.benchmarks.by_hand TABLE WIDTH

The table has the columns `path`, `label` and `split` (train or test); the recordings are mono WAV files at 16 kHz of at most a
second. Nothing of the product is imported. `tests.benchmarks.against_peers` times it beside `bench run`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchaudio.transforms import MelSpectrogram

RATE = 16_000


class Recordings(Dataset[Tensor]):
    """Waveforms of a second, zero-padded."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        waveform, _ = soundfile.read(self.paths[index], dtype="float32")
        missing = RATE - len(waveform)
        return torch.from_numpy(np.pad(waveform, (missing // 2, missing - missing // 2)))


class Encoder(nn.Module):
    """AudioNTT of BYOL-A (arXiv:2103.06695) with its log-mels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mel = MelSpectrogram(RATE, n_fft=1024, hop_length=160, n_mels=64, f_min=60, f_max=7800)
        blocks = []
        for channels in (1, 64, 64):
            blocks += [nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
            blocks += [nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*blocks)
        self.steps = nn.Sequential(
            nn.Linear(512, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.ReLU()
        )
        self.mean, self.std = 0.0, 1.0

    def log_mels(self, waveforms: Tensor) -> Tensor:
        """Return log-mels, shape (batch, bands, frames)."""
        features: Tensor = torch.log(self.mel(waveforms) + 1e-6)
        return features

    def forward(self, waveforms: Tensor) -> Tensor:
        """Embed waveforms, shape (batch, samples), as (batch, width)."""
        features = (self.log_mels(waveforms) - self.mean) / self.std
        steps = self.steps(self.blocks(features.unsqueeze(1)).permute(0, 3, 2, 1).flatten(2))
        embeddings: Tensor = steps.amax(dim=1) + steps.mean(dim=1)
        return embeddings


@torch.no_grad()
def main(table: Path, width: int) -> None:
    """Print the accuracy on the test clips."""
    clips = pd.read_csv(table)
    sides: dict[str, tuple[DataLoader[Any], Any]] = {}
    for side in ("train", "test"):
        rows = clips[clips["split"] == side]
        recordings = Recordings([table.parent / path for path in rows["path"]])
        sides[side] = DataLoader(recordings, batch_size=64, num_workers=2), rows["label"]
    encoder = Encoder(width).eval()
    log_mels = torch.cat([encoder.log_mels(batch) for batch in sides["train"][0]])
    encoder.mean, encoder.std = float(log_mels.mean()), float(log_mels.std())
    embeddings = {
        side: torch.cat([encoder(batch) for batch in loader]).numpy()
        for side, (loader, _) in sides.items()
    }
    probe = LogisticRegressionCV(
        Cs=np.logspace(-4, 1, 6),
        l1_ratios=(0,),
        cv=5,
        max_iter=1000,
        n_jobs=2,
        use_legacy_attributes=False,
    )
    probe = make_pipeline(StandardScaler(), probe)
    probe.fit(embeddings["train"], sides["train"][1])
    print(f"accuracy {100 * probe.score(embeddings['test'], sides['test'][1]):.1f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
