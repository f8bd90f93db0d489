"""Compare a prepared task with its card, its split rule and the files on disk."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lape_bench.core.progress import Progress
from lape_bench.data import audio, near_duplicates
from lape_bench.data.audio_store import STORE_RATE, built_rates, find_store_damage
from lape_bench.data.decoding.version import decoder_version
from lape_bench.data.drawn_split import missed_shares
from lape_bench.data.manifest import Manifest
from lape_bench.data.recording import Recording
from lape_bench.data.source_changes import source_changes
from lape_bench.runtime import cpu_cores
from lape_bench.task import SplitName, TaskCard

NAMED = 5
MOST_CLASSES = 40  # classes whose clips are counted one by one


class TaskFinding(NamedTuple):
    """The result of one check.

    Attributes:
        what: what was checked.
        holds: whether the check passed.
        detail: details for the user.
    """

    what: str
    holds: bool
    detail: str


def verify(card: TaskCard, manifest: Manifest, deep: bool, progress: Progress) -> list[TaskFinding]:
    """Check counts, groups, contents across sides, lengths, rates and files of a prepared task.

    Args:
        card: the card of the task or variant.
        manifest: its manifest, whose hash was checked when it was read.
        deep: also decode every file again, compare its content hash, and search for near-duplicates across sides.
        progress: counts the decoded clips.
    """
    findings = [
        *_counts(card, manifest),
        _per_class(card, manifest),
        _disjoint(card, manifest, "content", "audio"),
    ]
    if card.group is not None:
        findings.append(_disjoint(card, manifest, "group", card.group))
    findings += [_lengths(manifest), _rates(manifest)]
    if card.split.shares is not None:
        findings.append(_shares(manifest, card.split.shares))
    findings.append(_files(manifest))
    has_files = findings[-1].holds
    if has_files:
        findings.append(_source(card, manifest))
    if deep:
        findings.append(_store(manifest))
    if deep and has_files:
        findings.append(_contents(manifest, progress))
        if findings[-1].holds:
            findings.append(_near_duplicates(card, manifest, progress))
    return findings


def differences(card: TaskCard, manifest: Manifest) -> list[str]:
    """Return the differences from the counts in the card."""
    return [
        f"{finding.what}: {finding.detail}"
        for finding in _counts(card, manifest)
        if not finding.holds
    ]


def _counts(card: TaskCard, manifest: Manifest) -> Iterator[TaskFinding]:
    expected, clips = card.expected, manifest.clips
    skipped = len(manifest.info.skipped)
    note = f" ({skipped} skipped)" if skipped else ""
    if card.recordings is not None and skipped and len(clips) + skipped == expected.clips:
        # The class and side of skipped clips are not stored, and an own task has no published counts.
        yield TaskFinding("clips", True, f"{len(clips):,} of {expected.clips:,}{note}")
        return
    yield _equal("clips", len(clips), expected.clips, note)
    if expected.per_class is not None:
        counts = clips["label"].value_counts()
        each = expected.per_class
        expected_of = each if isinstance(each, dict) else dict.fromkeys(card.classes, each)
        for label, expected_count in expected_of.items():
            count = int(counts.get(label, 0))
            if count != expected_count:
                yield _equal(f"clips of class {label}", count, expected_count, "")
    side = clips["fold"].astype(str) if card.split.folds else clips["split"]
    counts = side.value_counts()
    for name, expected_count in expected.per_side.items():
        what = f"clips of fold {name}" if card.split.folds else f"clips of {name}"
        yield _equal(what, int(counts.get(name, 0)), expected_count, "")


def _per_class(card: TaskCard, manifest: Manifest) -> TaskFinding:
    counts = manifest.clips["label"].value_counts().reindex(card.classes, fill_value=0)
    detail = f"{counts.min():,} to {counts.max():,}"
    if len(card.classes) <= MOST_CLASSES:
        detail = ", ".join(f"{label}: {count:,}" for label, count in counts.items())
    empty = sorted(counts[counts == 0].index)
    if empty:
        more = ", ..." if len(empty) > NAMED else ""
        detail = f"{len(empty)} classes without a clip: {', '.join(empty[:NAMED])}{more}; {detail}"
    return TaskFinding("clips of each class", not empty, detail)


def _equal(what: str, count: int, expected: int, note: str) -> TaskFinding:
    if count == expected:
        return TaskFinding(what, True, f"{count:,}")
    return TaskFinding(what, False, f"{count:,} instead of {expected:,}{note}")


def _disjoint(card: TaskCard, manifest: Manifest, column: str, word: str) -> TaskFinding:
    without = int(manifest.clips[column].isna().sum())
    if without:
        return TaskFinding(f"no {word} on two sides", False, f"{without:,} clips without a {word}")
    side = manifest.clips["fold" if card.split.folds else "split"]
    if column == "group":
        side = side.replace(dict.fromkeys(card.split.may_share, " and ".join(card.split.may_share)))
    sides = side.groupby(manifest.clips[column]).nunique()
    shared = sorted(str(value) for value in sides[sides > 1].index)
    if shared:
        detail = f"{len(shared)} on several sides, such as {shared[0][:16]}"
        return TaskFinding(f"no {word} on two sides", False, detail)
    return TaskFinding(f"no {word} on two sides", True, f"{len(sides):,} different")


def _lengths(manifest: Manifest) -> TaskFinding:
    seconds = manifest.clips["seconds"]
    least, middle, most = seconds.min(), seconds.median(), seconds.max()
    hours = seconds.sum() / 3600
    return TaskFinding(
        "lengths", True, f"{least:.2f} to {most:.2f} s, median {middle:.2f} s, {hours:.2f} h in all"
    )


def _shares(manifest: Manifest, shares: Mapping[SplitName, float]) -> TaskFinding:
    counts = Counter(manifest.clips["split"].tolist())
    missed = missed_shares(counts, len(manifest.info.classes), shares)
    # Not a failure, since whole groups may leave no better choice.
    return TaskFinding("shares of the drawn split", True, missed or "as the card has them")


def _rates(manifest: Manifest) -> TaskFinding:
    counts = manifest.clips["rate"].value_counts()
    return TaskFinding(
        "rates", True, ", ".join(f"{rate:,} Hz: {n:,}" for rate, n in counts.items())
    )


def _near_duplicates(card: TaskCard, manifest: Manifest, progress: Progress) -> TaskFinding:
    what = "near-duplicates on two sides"
    if len(manifest) > near_duplicates.MOST_CLIPS:
        return TaskFinding(what, True, f"not looked for above {near_duplicates.MOST_CLIPS:,} clips")
    clips = manifest.open_clips(STORE_RATE)
    with progress.task("comparing", len(clips), "clips") as task:
        described = near_duplicates.fingerprints(clips, task)
    sides = manifest.clips["fold" if card.split.folds else "split"].to_numpy(object)
    pairs = near_duplicates.pairs_across(described, sides)
    if not pairs.n_pairs:
        return TaskFinding(what, True, "none")
    first, second, alike = pairs.most_alike[0]
    # Only a warning, since two takes of one voice may correlate too.
    return TaskFinding(
        what,
        True,
        f"{pairs.n_pairs:,} pairs to listen to, such as {clips.ids[first]} and {clips.ids[second]} "
        f"(correlation {alike:.3f})",
    )


def _source(card: TaskCard, manifest: Manifest) -> TaskFinding:
    changes = source_changes(card, manifest)
    detail = "; ".join(changes) or "as it was prepared"
    return TaskFinding("table, folder and recordings", not changes, detail)


def _files(manifest: Manifest) -> TaskFinding:
    missing = [str(r.path) for r in manifest.recordings() if not r.path.is_file()]
    if missing:
        return TaskFinding("files", False, f"{len(missing)} missing, such as {missing[0]}")
    return TaskFinding("files", True, f"all below {manifest.root.name}")


def _store(manifest: Manifest) -> TaskFinding:
    """Compare all decoded audio in the cache with its checksums."""
    what, key = "decoded audio in the cache", manifest.info.store_key
    rates = built_rates(key)
    damages = [damage for rate in rates if (damage := find_store_damage(key, rate, in_full=True))]
    if damages:
        return TaskFinding(what, False, f"{damages[0]}; the next run decodes it again")
    return TaskFinding(what, True, f"{len(rates)} rates, as they were written" if rates else "none")


def _contents(manifest: Manifest, progress: Progress) -> TaskFinding:
    with progress.task("decoding", len(manifest), "clips") as task:

        def problem(recording: Recording) -> str:
            task.advance()
            try:
                same = recording.content_hash() == recording.content
            except audio.AudioProblem as problem:
                return f"{recording.path}: {problem}"
            return "" if same else f"{recording.path} changed"

        # Threads suffice, since libsndfile and hashlib release the GIL.
        with ThreadPoolExecutor(cpu_cores.available()) as pool:
            wrong = [text for text in pool.map(problem, manifest.recordings()) if text]
    if wrong:
        detail = f"{len(wrong)} differ, such as {wrong[0]}"
        if manifest.info.decoder != decoder_version():
            detail += (
                "; another version of the decoders prepared them, so the files may be the same"
            )
        return TaskFinding("decoded audio", False, detail)
    return TaskFinding("decoded audio", True, "every clip as it was prepared")
