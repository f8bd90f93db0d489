"""Find concatenated FLAC recordings, since libsndfile reads only the first one, and those of unknown length."""

from functools import partial

from lape_bench.data.decoding.byte_source import ByteSource
from lape_bench.data.decoding.layout import Layout

MARKER = b"fLaC"
HEADS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # with the head of STREAMINFO


def flac(source: ByteSource) -> Layout:
    """Find the recordings of a file that begins with a FLAC stream."""
    starts, place = [0], 1
    while (place := source.find(MARKER, place)) >= 0:
        if source.at(place, 8) in HEADS:
            starts.append(place)
        place += 1
    parts = tuple(zip(starts, [*starts[1:], source.size], strict=True))
    if all(map(partial(_states_length, source), starts)):
        return Layout(parts, seekable=True)
    # libsndfile does not read a stream that was written into a pipe.
    return Layout(parts, ffmpeg="flac")


def _states_length(source: ByteSource, start: int) -> bool:
    """Return True if STREAMINFO gives the number of samples: the last 36 bits of these 8 bytes."""
    return int.from_bytes(source.at(start + 18, 8), "big") % 2**36 > 0
