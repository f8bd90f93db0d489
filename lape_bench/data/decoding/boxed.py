"""Containers of nested boxes that FFmpeg decodes: MP4 and M4A, Matroska and WebM.

Only the outermost boxes are checked: whether they are complete, and whether the file holds several concatenated
recordings, since FFmpeg would read only the first one.
"""

import struct

from lape_bench.data.decoding.byte_source import ByteSource
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.problem import TRUNCATED, AudioProblem

EBML = 0x1A45DFA3


def mp4(source: ByteSource) -> Layout:
    """Return the layout of one or several concatenated MP4 files. Format: ISO/IEC 14496-12, 4.2.

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
    """Return the layout of one or several concatenated Matroska files. Format: RFC 8794, RFC 9559.

    Raises:
        AudioProblem: a segment is cut off, or a cluster of a segment with unknown size.
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
        if size < 0:  # unknown size, as in a stream: the children follow
            place = start
            continue
        place = start + size
        if place > source.size:
            raise AudioProblem(TRUNCATED)
    return Layout(tuple(zip(starts, [*starts[1:], source.size], strict=True)), ffmpeg="matroska")


def _number(source: ByteSource, place: int, *, keep_marker: bool) -> tuple[int, int]:
    """Return a number of variable length and the place after it. The number is 0 if there is none, and -1 if it is
    unknown.
    """
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
