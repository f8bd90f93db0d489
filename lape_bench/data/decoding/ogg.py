"""Find the recordings in a chain of Ogg streams, and missing pages. Format: RFC 3533."""

import struct
import zlib

from lape_bench.data.decoding.byte_source import ByteSource
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.problem import TRUNCATED, AudioProblem

CONTINUES, BEGINS, ENDS = 1, 2, 4  # flags of a page
OF_LIBSNDFILE = (b"\x01vorbis", b"OpusHead")
OF_FFMPEG = (b"Speex   ", b"\x7fFLAC")
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg(source: ByteSource) -> Layout:
    """Find the streams of a chain, since libsndfile reads only the first one.

    Raises:
        AudioProblem: a page of a stream is missing, damaged or cut off, or several tracks of audio sound at once.
    """
    starts: list[int] = []
    serials: dict[int, int] = {}  # the number of the last page of each stream of this link
    place, in_heads, ended, is_known, tracks = 0, False, True, True, 0
    while len(head := source.at(place, 27)) == 27 and head[:4] == b"OggS":
        flags, serial, number = head[5], *struct.unpack_from("<II", head, 14)
        segments = source.at(place + 27, head[26])
        size = 27 + len(segments) + sum(segments)
        if len(segments) < head[26] or place + size > source.size:
            raise AudioProblem(TRUNCATED)
        if not _is_whole(source.at(place, size)):  # a decoder would leave it out
            raise AudioProblem(f"damaged: the checksum of the Ogg page at byte {place:,} is wrong")
        if flags & BEGINS and not in_heads:
            if not ended:
                raise AudioProblem("truncated: a stream in it lacks its last page")
            starts.append(place)
            serials.clear()
            tracks = 0
        if flags & BEGINS:
            content = source.at(place + 27 + len(segments), 8)
            is_known &= content.startswith((*OF_LIBSNDFILE, b"fishead\0"))
            tracks += content.startswith((*OF_LIBSNDFILE, *OF_FFMPEG))
            if tracks > 1:
                raise AudioProblem(f"it holds {tracks} audio tracks")
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


def _is_whole(page: bytes) -> bool:
    """Return True if the checksum in a page is that of its bytes."""
    # Ogg has the polynomial of zlib, with the bits in the other order, and neither first nor last value inverted.
    content = page[:22] + b"\0\0\0\0" + page[26:]
    inverted = zlib.crc32(content.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    checksum: int = struct.unpack_from("<I", page, 22)[0]
    return int(f"{inverted:032b}"[::-1], 2) == checksum
