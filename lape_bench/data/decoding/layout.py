"""How the bytes of an audio file are laid out, as far as a decoder has to be told."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The recordings of a file, and the decoder that reads them whole.

    Attributes:
        parts: first byte and end of each recording; several stand one after the other in a concatenated file.
        ffmpeg: FFmpeg's name of the container; empty if libsndfile reads the file.
        seekable: whether a stretch can be decoded without what stands before it, exact to the sample.
        frames: samples of each channel that the parts hold, if the container counts them; else 0.
    """

    parts: tuple[tuple[int, int], ...]
    ffmpeg: str = ""
    seekable: bool = False
    frames: int = 0
