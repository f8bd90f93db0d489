"""Hashes of the decoded clips of a task, as the installed decoders decode them.

Other decoders may return other samples of an MP3 or Ogg file, which have another hash. So the hashes in a manifest can be compared with
those of other audio only if the same version of the decoders made both.
"""

import hashlib
import os
from functools import partial

from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.core.locks import locked
from lape_bench.core.paths import home
from lape_bench.core.progress import Progress
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json
from lape_bench.data.audio import AudioProblem
from lape_bench.data.clip_names import printable
from lape_bench.data.decoding.version import decoder_version
from lape_bench.data.manifest import Manifest
from lape_bench.data.recording import Recording, decode_in_order


def current_contents(manifest: Manifest, progress: Progress) -> list[str]:
    """Return the hash of each clip's decoded samples, in the order of the manifest.

    If another version of the decoders made the manifest, or an unknown one, the recordings are decoded again. The cache keeps the result.

    Args:
        manifest: of the prepared task.
        progress: shows how many clips are decoded.

    Raises:
        UserError: a recording is needed and cannot be decoded.
    """
    if manifest.info.decoder == decoder_version():
        return manifest.clips["content"].tolist()
    name = hashlib.sha256(os.fsencode(manifest.reference)).hexdigest()[:32]
    file = home() / "corpora" / f"{name}.contents.json"
    made_for = [manifest.checksum(), decoder_version()]
    with locked(file.with_name(f".lock-{name}")):
        try:
            known = read_sealed_json(file)
        except (OSError, DamagedFile):  # none yet, or damaged
            known = {}
        if known.get("made_for") != made_for:
            known = {"made_for": made_for, "contents": _decoded(manifest, progress)}
            write_sealed_json(file, known)
    contents: list[str] = known["contents"]
    return contents


def _decoded(manifest: Manifest, progress: Progress) -> list[str]:
    contents, recordings = [], manifest.recordings()
    with (
        progress.task(f"decoding {manifest.reference}", len(recordings), "clips") as task,
        decode_in_order(recordings, partial(_content, manifest)) as decoded,
    ):
        for content in decoded:
            contents.append(content)
            task.advance()
    return contents


def _content(manifest: Manifest, recording: Recording) -> str:
    try:
        return recording.content_hash()
    except AudioProblem as problem:
        raise UserError(
            f"'{manifest.reference}' was prepared by another version of the decoders, and {printable(recording.path)} {problem}, "
            "so its clips cannot be compared with those of a corpus",
            next_step=f"prepare it again: 'bench data prepare {manifest.info.task}'",
        ) from problem
