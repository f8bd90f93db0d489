"""Compare the header of a NIST SPHERE file, as of TIMIT and other corpora of the LDC, with its size.

The header is text: `NIST_1A`, its own length in bytes, and a line for each field, such as `sample_count -i 32000`.
"""

import re

from lape_bench.data.decoding.byte_source import ByteSource
from lape_bench.data.decoding.layout import Layout
from lape_bench.data.decoding.problem import TRUNCATED, AudioProblem

MAGIC = b"NIST_1A\n"
LONGEST_HEADER = 2**20  # bytes
COMPRESSED = re.compile(rb"^sample_coding .*(shorten|wavpack|shortpack)", re.MULTILINE)
COUNTS = (b"sample_count", b"channel_count", b"sample_n_bytes")


def nist(source: ByteSource) -> Layout:
    """Return the layout of one or several concatenated files.

    Raises:
        AudioProblem: the audio is truncated or goes on behind its stated end, or a header does not give its length.
    """
    parts, start = [], 0
    while start < source.size:
        end = start + _size(source, start)
        if end > source.size:
            raise AudioProblem(TRUNCATED)
        parts.append((start, end))
        start = end
    return Layout(tuple(parts), seekable=len(parts) == 1)


def _size(source: ByteSource, start: int) -> int:
    """Return the number of bytes of header and audio from `start`."""
    first = source.at(start, 16)
    if not first.startswith(MAGIC):
        raise AudioProblem(f"damaged: audio goes on at byte {start:,}, behind its stated end")
    length = re.fullmatch(rb"\s*(\d+)\s*", first[len(MAGIC) :])
    header_bytes = int(length[1]) if length else 0
    header = source.at(start, min(header_bytes, LONGEST_HEADER))
    if COMPRESSED.search(header):
        raise AudioProblem("compressed inside of its NIST header; convert it with sph2pipe")
    counts = [re.search(rb"^" + name + rb" -i (\d+)\s*$", header, re.MULTILINE) for name in COUNTS]
    if not all(counts):
        raise AudioProblem("damaged: its header does not say how much audio it holds")
    samples, channels, width = (int(count[1]) for count in counts if count)
    return header_bytes + samples * channels * width
