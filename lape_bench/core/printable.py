"""Make text from elsewhere, such as file names and fields of records, safe for a terminal."""

import re

# Control characters, marks that reorder text, line separators, and halves of surrogate pairs, which stand for the bytes
# of file names that are not UTF-8 and cannot be encoded.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def is_printable(text: str) -> bool:
    """Return True if a text can be printed as it is. Tabs and line feeds are allowed."""
    return UNSAFE.search(text) is None


def printable(text: str) -> str:
    r"""Replace every character that a terminal would act on or cannot show by its escape, such as `\x1b`."""
    return UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)
