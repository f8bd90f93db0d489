"""Recognize the container of a file by its first bytes. The extension only helps to find MP3 frames after other
bytes.
"""

from lape_bench.data.decoding import boxed, chunked, mpeg
from lape_bench.data.decoding.byte_source import AudioFile, ByteSource
from lape_bench.data.decoding.flac import flac
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.nist import MAGIC as NIST
from lape_bench.data.decoding.nist import nist
from lape_bench.data.decoding.ogg import ogg
from lape_bench.data.decoding.problem import AudioProblem

EBML, ASF = b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
KNOWN_STARTS = (
    *(b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff", b"#!AMR", b"riff"),
    NIST,
)


def layout_of(path: AudioFile) -> Layout:
    """Return the layout of a file, after comparing its headers with its size.

    Raises:
        AudioProblem: the file is empty or truncated, or holds audio that its headers do not count.
        OSError: it cannot be read.
    """
    with ByteSource(path) as source:
        head = source.at(0, 16)
        if not head:
            raise AudioProblem("empty file (0 bytes)")
        whole = ((0, source.size),)
        magic, kind = head[:4], head[8:12]
        if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64") and kind == b"WAVE":
            return chunked.wav(source)
        if magic == b"FORM" and kind in (b"AIFF", b"AIFC"):
            return chunked.aiff(source)
        if magic in (b".snd", b"dns."):
            return chunked.au(source)
        if magic == b"riff":
            return chunked.w64(source)
        if magic == b"caff":
            return chunked.caf(source)
        if head.startswith(NIST):
            return nist(source)
        if magic == b"fLaC":
            return flac(source)
        if magic == b"OggS":
            return ogg(source)
        if head[4:8] == b"ftyp":
            return boxed.mp4(source)
        if magic == EBML:
            return boxed.matroska(source)
        if head[:8] == ASF:
            return Layout(whole, ffmpeg="asf")
        if head[:5] == b"#!AMR":
            return Layout(whole, ffmpeg="amr")
        if head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
            return Layout(whole, ffmpeg="aac")
        may_be_mpeg = magic[:3] == b"ID3" or head[0] == 0xFF or path.suffix.lower() == ".mp3"
        if may_be_mpeg and mpeg.first_frame(source) >= 0:
            return mpeg.mpeg(source)
        return Layout(whole)
