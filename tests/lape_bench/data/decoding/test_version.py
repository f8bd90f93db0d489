"""The version of the decoders follows everything that may change samples."""

import av
import pytest
import soundfile

from lape_bench.data.decoding import version


def test_a_library_that_is_updated_without_its_package_is_another_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_now = version.decoder_version.__wrapped__
    versions = {of_now()}
    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "__libsndfile_version__", "0.0.1")
        versions.add(of_now())
    with monkeypatch.context() as patch:
        patch.setitem(av.library_versions, "libavcodec", (0, 0, 1))
        versions.add(of_now())
    with monkeypatch.context() as patch:
        patch.setattr(version, "PACKAGES", ("pandas",))
        versions.add(of_now())
    assert len(versions) == 4
    assert of_now() == version.decoder_version()
