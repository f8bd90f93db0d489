"""Count the frames of MPEG audio (MP3), since a file need not say how many it has.

libsndfile guesses the length of an MP3 without a tag from its first frames. It reads only a part of some files with a
variable bit rate, and refuses others. So FFmpeg decodes, and the number of frames tells how much audio to expect. Frame
headers: ISO/IEC 11172-3, 2.4.1.3; tag "Xing" or "Info": the LAME project's description of it.
"""

import struct
from typing import NamedTuple

from lape_bench.data.decoding.byte_source import ByteSource
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.problem import TRUNCATED, AudioProblem

RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
KBITS = {  # by MPEG version 1 or not, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
SEARCHED_BYTES = 2**16  # for the first frame
SLACK_BYTES = 4096  # after the last frame: unknown tags


class _Frame(NamedTuple):
    kind: tuple[int, int, int]  # version, layer, rate: the same in all frames of a recording
    size: int
    samples: int


def _frame(head: bytes) -> _Frame | None:
    """Read the 4-byte header of a frame; None if the bytes are not such a header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbit_index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or kbit_index in (0, 15) or rate_index == 3:
        return None
    rate, kbit = RATES[version][rate_index], KBITS[version == 3, layer][kbit_index - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slot = 4 if layer == 1 else 1
    size = (samples // 8 * 1000 * kbit // rate // slot + padding) * slot
    return _Frame((version, layer, rate), size, samples)


def first_frame(source: ByteSource) -> int:
    """Return the place of the first of two consecutive frames, after any tags; -1 if there is none."""
    start = _after_tag(source, 0)
    content = source.at(start, SEARCHED_BYTES)
    place = content.find(b"\xff")
    while place >= 0:
        frame = _frame(content[place : place + 4])
        if frame is not None:
            following = start + place + frame.size
            after = _frame(source.at(following, 4))
            if (after is not None and after.kind == frame.kind) or following == source.size:
                return start + place
        place = content.find(b"\xff", place + 1)
    return -1


def _after_tag(source: ByteSource, start: int) -> int:
    """Return where an ID3v2 tag at `start` ends; `start` if there is none."""
    while len(head := source.at(start, 10)) == 10 and head[:3] == b"ID3":
        a, b, c, d = (byte & 0x7F for byte in head[6:])
        start += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)
    return start


def mpeg(source: ByteSource) -> Layout:
    """Count the frames of an MP3, and separate concatenated recordings.

    Raises:
        AudioProblem: there are fewer frames than a tag says, the last frame is cut off, or there are other bytes
            between frames.
    """
    place = first_frame(source)
    parts: list[tuple[int, int]] = []
    samples, left = 0, 0  # left: frames that are still to come, by the tag of this recording
    begins = True
    while 0 <= place < source.size:
        frame = _frame(source.at(place, 4))
        if frame is None:
            place, begins = _after_no_frame(source, place), True
            continue
        stated = _stated_frames(source, place)
        if begins or stated is not None:
            if left > 0:
                raise AudioProblem(TRUNCATED)
            parts.append((place, place))
            left = stated or 0
        else:
            left -= 1
        if stated is None:
            samples += frame.samples  # the frame of a tag holds no audio
        place, begins = place + frame.size, False
        if place > source.size:
            raise AudioProblem(TRUNCATED)
        parts[-1] = (parts[-1][0], place)
    if left > 0:
        raise AudioProblem(TRUNCATED)
    return Layout(tuple(parts), ffmpeg="mp3", frames=samples)


def _after_no_frame(source: ByteSource, place: int) -> int:
    """Return where a tag at `place` ends; -1 if nothing but padding follows.

    Raises:
        AudioProblem: the bytes at `place` are neither a frame nor a tag.
    """
    head = source.at(place, 32)
    if head[:3] == b"ID3":
        return _after_tag(source, place)
    if head[:3] == b"TAG":
        return place + 128
    if head[:8] == b"APETAGEX":
        size, flags = struct.unpack_from("<I4xI", head.ljust(32, b"\0"), 12)
        return place + 32 + (size if flags & 0x20000000 else 0)
    content = source.at(place, SEARCHED_BYTES)
    if source.size - place <= SLACK_BYTES or not any(content):
        return -1
    raise AudioProblem(f"damaged: there is no MP3 frame at byte {place:,} of {source.size:,}")


def _stated_frames(source: ByteSource, place: int) -> int | None:
    """Return the number of frames in a tag, 0 if the tag does not say; None if this frame is not a tag."""
    content = source.at(place, 4 + 2 + 32 + 12)
    for offset in (13, 15, 21, 23, 36, 38):
        if content[offset : offset + 4] in (b"Xing", b"Info"):
            flags, frames = struct.unpack_from(">II", content, offset + 4)
            return frames if flags & 1 else 0
    return None
