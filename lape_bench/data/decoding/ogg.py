"""Find the recordings in a chain of Ogg streams, and missing pages. Format: RFC 3533."""

import struct

from lape_bench.data.decoding.byte_source import ByteSource
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.problem import TRUNCATED, AudioProblem

CONTINUES, BEGINS, ENDS = 1, 2, 4  # flags of a page
OF_LIBSNDFILE = (b"\x01vorbis", b"OpusHead")


def ogg(source: ByteSource) -> Layout:
    """Find the streams of a chain, since libsndfile reads only the first one.

    Raises:
        AudioProblem: a page of a stream is missing, or the last one is cut off.
    """
    starts: list[int] = []
    serials: dict[int, int] = {}  # the number of the last page of each stream of this link
    place, in_heads, ended, is_known = 0, False, True, True
    while len(head := source.at(place, 27)) == 27 and head[:4] == b"OggS":
        flags, serial, number = head[5], *struct.unpack_from("<II", head, 14)
        segments = source.at(place + 27, head[26])
        size = 27 + len(segments) + sum(segments)
        if len(segments) < head[26] or place + size > source.size:
            raise AudioProblem(TRUNCATED)
        if flags & BEGINS and not in_heads:
            if not ended:
                raise AudioProblem("truncated: a stream in it lacks its last page")
            starts.append(place)
            serials.clear()
        if flags & BEGINS:
            content = source.at(place + 27 + len(segments), 8)
            is_known &= content.startswith((*OF_LIBSNDFILE, b"fishead\0"))
        elif serial in serials and number > serials[serial] + 1:
            missing = number - serials[serial] - 1
            raise AudioProblem(f"damaged: {missing} Ogg pages are missing before byte {place:,}")
        serials[serial] = number
        in_heads, ended = bool(flags & BEGINS), bool(flags & ENDS)
        place += size
    if place < source.size and source.find(b"OggS", place) > place:
        raise AudioProblem(f"damaged: there is no Ogg page at byte {place:,}")
    if not ended or (place < source.size and source.at(place, 4)[:1] == b"O"):
        raise AudioProblem(TRUNCATED)
    ends = [*starts[1:], source.size]
    # Such as Speex. libsndfile reads its own FLAC in Ogg, but not that of FFmpeg.
    return Layout(tuple(zip(starts, ends, strict=True)), "" if is_known else "ogg")
