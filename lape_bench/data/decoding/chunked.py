"""Containers whose headers say how many bytes of audio follow: WAV, RF64, W64, AIFF, AU and CAF.

libsndfile reads a truncated file as a shorter clip, and stops after the first recording. So the sizes in the headers
are compared with the size of the file here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lape_bench.data.decoding.byte_source import ByteSource
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.problem import TRUNCATED, AudioProblem

RIFF_NAMES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
PCM_TAGS = {0x0001, 0x0003, 0x0006, 0x0007}  # PCM, float, A-law, mu-law: exact to the sample
BLOCK_TAGS = {0x0002, 0x0011, 0x0031}  # MS ADPCM, IMA ADPCM, GSM 6.10: whole blocks only
EXTENSIBLE = 0xFFFE
CAF_OF_LIBSNDFILE = {
    b"lpcm",
    b"ulaw",
    b"alaw",
    b"alac",
}  # of ALAC, FFmpeg cuts the last packet twice
AU_HEADER_BYTES = 24
AU_EXACT = {1, 2, 3, 4, 5, 6, 7, 27}  # mu-law, PCM, float, A-law; not the ADPCM of G.72x
AIFC_BLOCKS = {b"ima4", b"GSM "}
AIFC_EXACT = {b"NONE", b"sowt", b"twos", b"fl32", b"FL32", b"fl64", b"FL64", b"ulaw", b"alaw"}
SLACK_BYTES = 4096  # bytes after the audio that are padding or tags, but not a chunk


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    start: int  # of its content
    size: int


def _is_placeholder(size: int) -> bool:
    """Return True if a 32-bit size is a placeholder of a program that could not go back to set it."""
    return 0x7FFFF000 <= size <= 0x80000000 or size >= 0xFFFFF000


def _chunks(source: ByteSource, start: int, order: str) -> Iterator[_Chunk]:
    """Yield chunks with a 4-byte name and a 4-byte size, until something else follows."""
    while len(head := source.at(start, 8)) == 8 and all(32 <= byte < 127 for byte in head[:4]):
        size = int(struct.unpack(order + "I", head[4:])[0])
        yield _Chunk(head[:4], start + 8, size)
        start += 8 + size
        # Chunks start at even places, but some writers ignore this.
        if size % 2 and source.at(start, 1) in (b"\0", b""):
            start += 1


def wav(source: ByteSource) -> Layout:
    """Return the layout of one or several concatenated WAV or RF64 files.

    Raises:
        AudioProblem: the audio is truncated, or goes on behind its stated end.
    """
    parts: list[tuple[int, int]] = []
    tags: set[int] = set()
    start = 0
    while start < source.size:
        tag, end = _wav_recording(source, start)
        tags.add(tag)
        if end is None:  # no size was set: to the end of the file
            return Layout(((start, source.size),), ffmpeg="wav")
        parts.append((start, end))
        if source.at(end, 4) not in RIFF_NAMES:
            _refuse_leftover(source, start, end)
            break
        start = end
    ffmpeg = "" if tags <= PCM_TAGS | BLOCK_TAGS else "wav"
    return Layout(tuple(parts), ffmpeg, seekable=tags <= PCM_TAGS)


def _wav_recording(source: ByteSource, start: int) -> tuple[int, int | None]:
    """Return the format tag of the recording at `start`, and its end; None if its header does not say."""
    order = ">" if source.at(start, 4) == b"RIFX" else "<"
    tag, long_size, end = 0, 0, 0
    for chunk in _chunks(source, start + 12, order):
        if end:  # after the audio: notes and tags, or the next recording
            if chunk.name in RIFF_NAMES or chunk.start + chunk.size > source.size:
                break
            end = _chunk_end(source, chunk)
        elif chunk.name == b"ds64":
            long_size = struct.unpack("<Q", source.at(chunk.start + 8, 8).ljust(8, b"\0"))[0]
        elif chunk.name == b"fmt ":
            content = source.at(chunk.start, 26).ljust(26, b"\0")
            tag = struct.unpack_from(order + "H", content)[0]
            if tag == EXTENSIBLE:
                tag = struct.unpack_from(order + "H", content, 24)[0]
        elif chunk.name == b"data":
            is_long = chunk.size == 0xFFFFFFFF and 0 < long_size < 2**63
            audio = _Chunk(b"data", chunk.start, long_size) if is_long else chunk
            if audio.start + audio.size > source.size:
                if not is_long and _is_placeholder(audio.size):
                    return tag, None
                raise AudioProblem(TRUNCATED)
            if audio.size == 0 and not _are_chunks(source, audio.start, order):
                return tag, None
            end = _chunk_end(source, audio)
            if is_long:
                break
    return tag, end or source.size


def _chunk_end(source: ByteSource, chunk: _Chunk) -> int:
    """Return where the next chunk begins, if there is one."""
    end = chunk.start + chunk.size
    return end + (chunk.size % 2 and source.at(end, 1) == b"\0")


def _are_chunks(source: ByteSource, start: int, order: str) -> bool:
    """Return True if there are only complete chunks from `start` to the end of the file."""
    for chunk in _chunks(source, start, order):
        if (start := chunk.start + chunk.size) > source.size:
            return False
    return source.size - start <= 1


def _refuse_leftover(source: ByteSource, start: int, end: int) -> None:
    """Raise an `AudioProblem` if many bytes follow the stated end of the audio, as after an interrupted recording."""
    left = source.size - end
    if left > SLACK_BYTES + (end - start) // 100:
        content = source.at(end, SLACK_BYTES)
        if any(content) and not content.startswith((b"ID3", b"TAG", b"APETAGEX")):
            raise AudioProblem(
                f"holds more than its header says: {left:,} bytes follow the audio's stated end"
            )


def aiff(source: ByteSource) -> Layout:
    """Return the layout of one or several concatenated AIFF or AIFC files.

    Raises:
        AudioProblem: the audio is truncated, or the header does not say how long it is.
    """
    parts: list[tuple[int, int]] = []
    start, kinds = 0, set[bytes]()
    while source.at(start, 4) == b"FORM":
        end, frames, frame_bytes, stated, kind = start + 12, 0, 0, None, b"NONE"
        is_aifc = source.at(start + 8, 4) == b"AIFC"
        for chunk in _chunks(source, start + 12, ">"):
            if chunk.name == b"FORM":
                break
            if chunk.name == b"COMM":
                content = source.at(chunk.start, 22).ljust(22, b"\0")
                channels, frames, bits = struct.unpack_from(">HIH", content)
                frame_bytes = channels * -(-bits // 8)
                kind = content[18:22] if is_aifc else kind
            elif chunk.name == b"SSND":
                stated = chunk.size - 8
                if chunk.size == 0 or _is_placeholder(chunk.size):
                    raise AudioProblem(
                        "its header does not say how long it is, as if written to a pipe; convert it to WAV or FLAC"
                    )
            if chunk.start + chunk.size > source.size:
                if chunk.name == b"SSND" or stated is None:
                    raise AudioProblem(TRUNCATED)
                break
            end = _chunk_end(source, chunk)
        if frames and stated is None:
            raise AudioProblem(TRUNCATED)
        if kind in {b"NONE", b"sowt", b"twos"} and frames * frame_bytes > (stated or 0):
            raise AudioProblem(TRUNCATED)
        kinds.add(kind)
        parts.append((start, end))
        start = end
    _refuse_leftover(source, parts[-1][0], parts[-1][1])
    ffmpeg = "" if kinds <= AIFC_EXACT | AIFC_BLOCKS else "aiff"
    return Layout(tuple(parts), ffmpeg, seekable=kinds <= AIFC_EXACT)


def au(source: ByteSource) -> Layout:
    """Return the layout of one or several concatenated AU files.

    Raises:
        AudioProblem: the audio is truncated, or goes on behind its stated end.
    """
    parts: list[tuple[int, int]] = []
    start, is_exact = 0, True
    while (magic := source.at(start, 4)) in (b".snd", b"dns."):
        order = ">" if magic == b".snd" else "<"
        offset, size, kind = struct.unpack(order + "III", source.at(start + 4, 12).ljust(12, b"\0"))
        is_exact &= kind in AU_EXACT
        if offset < AU_HEADER_BYTES:
            raise AudioProblem("damaged: its header does not say where the audio begins")
        end = source.size if size == 0xFFFFFFFF else start + offset + size
        if end > source.size:
            raise AudioProblem(TRUNCATED)
        parts.append((start, end))
        start = end
    _refuse_leftover(source, parts[-1][0], parts[-1][1])
    return Layout(tuple(parts), seekable=is_exact)


def w64(source: ByteSource) -> Layout:
    """Return the layout of one or several concatenated Sony Wave64 files.

    Raises:
        AudioProblem: the audio is truncated, or goes on behind its stated end.
    """
    parts: list[tuple[int, int]] = []
    start, place, tags, has_audio = 0, 40, set[int](), False
    while len(head := source.at(place, 24)) == 24:
        name, size = head[:4], struct.unpack("<Q", head[16:])[0]  # with these 24 bytes
        if name == b"riff" and has_audio:
            parts.append((start, place))
            start, place, has_audio = place, place + 40, False
            continue
        if name == b"fmt ":
            content = source.at(place + 24, 26).ljust(26, b"\0")
            tag = struct.unpack_from("<H", content)[0]
            tags.add(struct.unpack_from("<H", content, 24)[0] if tag == EXTENSIBLE else tag)
        is_audio = name == b"data"
        if is_audio and (size >= 2**62 or (size <= 24 and place + 24 < source.size)):
            return Layout(((0, source.size),), ffmpeg="w64")  # no size was set
        if is_audio and place + size > source.size:
            raise AudioProblem(TRUNCATED)
        if size < 24 or place + size > source.size:
            break
        has_audio |= is_audio
        place += size + -size % 8
    if not has_audio:
        raise AudioProblem(TRUNCATED)
    _refuse_leftover(source, start, min(place, source.size))
    parts.append((start, source.size))
    ffmpeg = "" if tags <= PCM_TAGS | BLOCK_TAGS else "w64"
    return Layout(tuple(parts), ffmpeg, seekable=tags <= PCM_TAGS)


def caf(source: ByteSource) -> Layout:
    """Return the layout of one or several concatenated Apple Core Audio files.

    Raises:
        AudioProblem: the audio is truncated.
    """
    parts: list[tuple[int, int]] = []
    start, place, kinds, has_audio, frames = 0, 8, set[bytes](), False, 0
    while len(head := source.at(place, 12)) == 12:
        name, size = head[:4], struct.unpack(">q", head[4:])[0]
        if name == b"caff" and has_audio:
            parts.append((start, place))
            start, place, has_audio = place, place + 8, False
            continue
        if name == b"desc":
            kinds.add(source.at(place + 20, 4))
        elif name == b"pakt":
            frames += max(0, struct.unpack(">q", source.at(place + 20, 8).ljust(8, b"\0"))[0])
        has_audio |= name == b"data"
        if name == b"data" and size == -1:  # to the end of the file
            break
        if size < 0 or place + 12 + size > source.size:
            raise AudioProblem(TRUNCATED)
        place += 12 + size
    if not has_audio:
        raise AudioProblem(TRUNCATED)
    parts.append((start, source.size))
    if not kinds <= CAF_OF_LIBSNDFILE:
        return Layout(tuple(parts), ffmpeg="caf", frames=frames)
    return Layout(tuple(parts), seekable=b"alac" not in kinds)
