"""Containers of nested boxes that FFmpeg decodes: MP4 and M4A, Matroska and WebM.

Only the outermost boxes are looked at: whether the file holds them whole, and whether recordings were concatenated,
of which FFmpeg would read the first alone.
"""

import struct

from lape_bench.data.decoding.byte_source import ByteSource
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.problem import TRUNCATED, AudioProblem

EBML = 0x1A45DFA3


def mp4(source: ByteSource) -> Layout:
    """Lay out MP4 files, perhaps several in one. Format: ISO/IEC 14496-12, 4.2.

    Raises:
        AudioProblem: a box is cut off.
    """
    starts: list[int] = []
    place = 0
    while len(head := source.at(place, 16)) >= 8:
        size, name = struct.unpack_from(">I4s", head)
        if size == 1 and len(head) == 16:
            size = struct.unpack_from(">Q", head, 8)[0]
        elif size == 0:  # to the end of the file
            size = source.size - place
        if name == b"ftyp":
            starts.append(place)
        if size < 8 or (place + size > source.size and not name.isalnum()):
            break  # no box
        place += size
        if place > source.size:
            raise AudioProblem(TRUNCATED)
    return Layout(tuple(zip(starts, [*starts[1:], source.size], strict=True)), ffmpeg="mov")


def matroska(source: ByteSource) -> Layout:
    """Lay out Matroska files, perhaps several in one. Format: RFC 8794, RFC 9559.

    Raises:
        AudioProblem: a segment, or a cluster of one whose size is unknown, is cut off.
    """
    starts: list[int] = []
    place = 0
    while place < source.size:
        name, start = _number(source, place, keep_marker=True)
        size, start = _number(source, start, keep_marker=False)
        if name == EBML:
            starts.append(place)
        elif name == 0 or start > source.size:
            break  # no element
        if size < 0:  # unknown, as in a stream: its children follow
            place = start
            continue
        place = start + size
        if place > source.size:
            raise AudioProblem(TRUNCATED)
    return Layout(tuple(zip(starts, [*starts[1:], source.size], strict=True)), ffmpeg="matroska")


def _number(source: ByteSource, place: int, *, keep_marker: bool) -> tuple[int, int]:
    """Read a number of variable length; return it and where it ends. It is 0 if there is none, -1 if it is unknown."""
    head = source.at(place, 8)
    if not head or not head[0]:
        return 0, source.size + 1
    count = 9 - head[0].bit_length()
    value = int.from_bytes(head[:count], "big")
    if not keep_marker:
        value &= (1 << 7 * count) - 1
        if value == (1 << 7 * count) - 1:
            value = -1
    return value, place + count
