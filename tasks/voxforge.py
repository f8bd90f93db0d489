"""VoxForge: language identification, from recordings that volunteers submitted.

    {...}/{language}/{...}/{submission}/wav/*.wav        or flac/*.flac; one archive a submission

A submission is {user}-{date}-{code}, or lacks the code. The site's own tree has `SpeechCorpus` for English and two
letters for the others.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lape_bench.core.errors import UserError
from lape_bench.task import ClipEntry, IndexedReader, TaskCard, leads_back, read_list

LANGUAGES = {name: name for name in ("de", "en", "es", "fr", "it", "ru")} | {"SpeechCorpus": "en"}
SUBMISSION = re.compile(r"(?P<user>.+?)-(?P<date>\d{8})(?:-(?P<code>\w+))?")
AUDIO = {"wav": ".wav", "flac": ".flac"}


class VoxForge(IndexedReader):
    """Languages by folder; sides are drawn, with all submissions of a user on one."""

    index = "voxforge_urls.txt"

    def read_index(self, path: Path) -> dict[str, str]:
        """See `IndexedReader`; the file holds an address a line, perhaps quoted, perhaps without `http://`."""
        archives = {}
        text = read_list(path, "replace")
        for number, line in enumerate(text.splitlines(), 1):
            address = line.strip().strip("\"'")
            if not address:
                continue
            url = address if "://" in address else f"http://{address}"
            try:
                name = unquote(urlsplit(url).path).strip("/")
            except ValueError:  # of brackets
                name = ""
            if not name or re.search(r"[\s<>\ufffd]", url):
                raise UserError(
                    f"{path}: line {number} is not the address of a file",
                    next_step="delete the file and fetch it again; its server may have sent another page",
                )
            archives[url] = name
        return archives

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the recordings of every submission, the FLAC files only where there is no WAV."""
        by_submission = card.variant == "by-submission"
        listing = []
        for folder, language in _submissions(root):
            name = folder.name
            parsed = SUBMISSION.fullmatch(name)
            user = parsed["user"] if parsed else name
            # Many people submitted as anonymous; each such submission may be anybody's.
            together = name if by_submission or user.lower().startswith("anonymous") else user
            for kind, ending in AUDIO.items():
                paths = sorted(
                    p for p in folder.glob(f"{kind}/[!.]*") if p.suffix.lower() == ending
                )
                for path in paths:
                    clip_id = f"{language}/{name}/{path.stem}"
                    listing.append(ClipEntry(clip_id, path, language, None, None, together))
                if paths:
                    break
        return listing


def _submissions(root: Path) -> Iterator[tuple[Path, str]]:
    """Walk the tree, links too, to the folders that hold wav or flac, each with its language."""
    for place, inside, _ in os.walk(root, followlinks=True):
        folder = Path(place)
        if set(AUDIO) & set(inside):
            inside.clear()
            languages = [
                LANGUAGES[part]
                for part in folder.relative_to(root.parent).parts
                if part in LANGUAGES
            ]
            if languages:
                yield folder, languages[-1]
        inside[:] = sorted(name for name in inside if not leads_back(folder / name))
