"""Names and settings that hold a path: short wherever people read them, relative in records where that is possible.

A path of somebody's disk fills a table and shows a home folder, and says nothing elsewhere. What a file holds is known by
its SHA-256, which is part of a record's provenance.
"""

from functools import lru_cache
from pathlib import Path, PurePosixPath

# Files of code and of weights; `hf:facebook/wav2vec2-base` is a name of a hub, and stays whole.
SUFFIXES = {
    *(".py", ".yaml", ".json"),
    *(".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".npz", ".h5", ".keras"),
}


def short_name(text: str) -> str:
    """Return a system's name, or the text of a setting, without the folders of a path that it holds.

    Args:
        text: such as `file.py:Class`, `KIND:PATH`, `KIND:MODULE@PATH` or a path; any other text is returned as it is.
    """
    head, path, tail = _parts(text)
    return f"{head}{PurePosixPath(path).name or path}{tail}" if path else text


def relative_name(text: str, folder: Path) -> str:
    """Return a name with its path relative to a folder, if it is absolute and lies below that folder."""
    head, path, tail = _parts(text)
    if path and Path(path).is_relative_to(folder):
        return f"{head}{Path(path).relative_to(folder).as_posix()}{tail}"
    return text


@lru_cache(1024)  # reports ask several times for each of thousands of records
def _parts(text: str) -> tuple[str, str, str]:
    """Split a text into the part before a path, the path, and the part after it. Without a path all parts are empty."""
    file, colon, kind = text.rpartition(":")
    if file.endswith(".py"):  # file.py:Class, perhaps behind a KIND
        head, path, _ = _parts(file)
        return (head, path, f"{colon}{kind}") if path else ("", "", "")
    if _is_path(text):
        return "", text, ""
    kind, colon, argument = text.partition(":")
    module, at, weights = argument.partition("@")  # hear:MODULE@WEIGHTS
    if at and _is_path(weights):
        return f"{kind}{colon}{module}{at}", weights, ""
    return (kind + colon, argument, "") if _is_path(argument) else ("", "", "")


def _is_path(text: str) -> bool:
    if text.startswith(("/", "~", "./", "../")):
        return True
    return ":" not in text and PurePosixPath(text).suffix in SUFFIXES
