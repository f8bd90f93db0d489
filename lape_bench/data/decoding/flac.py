"""Find concatenated FLAC recordings, since libsndfile reads only the first one."""

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
    ends = [*starts[1:], source.size]
    return Layout(tuple(zip(starts, ends, strict=True)), seekable=True)
