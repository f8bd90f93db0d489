"""The layout of an audio file, as far as a decoder needs it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The recordings of a file, and the decoder that reads them whole.

    Attributes:
        parts: first byte and end of each recording; a concatenated file has several.
        ffmpeg: FFmpeg's name of the container; empty if libsndfile reads the file.
        seekable: whether a part can be decoded on its own, exact to the sample.
        frames: samples per channel in all parts together, if the container counts them; otherwise 0.
    """

    parts: tuple[tuple[int, int], ...]
    ffmpeg: str = ""
    seekable: bool = False
    frames: int = 0
