"""The packaged model is joined once, in one step."""

from pathlib import Path

import pytest

from topology.errors import UserError
from workers.transcribe import packaged


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small packages with the layout of the real ones."""
    for name, part, content in (("one", "model.bin.part1", b"abc"), ("two", "model.bin.part2", b"def")):
        data = tmp_path / name / "data"
        data.mkdir(parents=True)
        (data / part).write_bytes(content)
        (tmp_path / name / "__init__.py").touch()
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (tmp_path / "one" / "data" / name).write_text(name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(packaged, "_PACKAGES", ("one", "two"))
    monkeypatch.setattr(packaged, "_MODEL_BYTES", 6)
    return tmp_path


def test_the_parts_are_joined_once(parts: Path) -> None:
    folder = packaged.packaged_whisper(parts / "cache")
    assert (folder / "model.bin").read_bytes() == b"abcdef"
    assert {path.name for path in folder.iterdir()} == {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"}
    made = (folder / "model.bin").stat().st_mtime_ns
    assert packaged.packaged_whisper(parts / "cache") == folder
    assert (folder / "model.bin").stat().st_mtime_ns == made
    assert [path.name for path in (parts / "cache").iterdir()] == ["whisper-base"]


def test_a_broken_folder_is_made_anew(parts: Path) -> None:
    broken = parts / "cache" / "whisper-base"
    broken.mkdir(parents=True)
    (broken / "model.bin").write_bytes(b"ab")
    assert (packaged.packaged_whisper(parts / "cache") / "model.bin").read_bytes() == b"abcdef"


def test_parts_of_the_wrong_size_are_told_with_the_mend(parts: Path) -> None:
    (parts / "two" / "data" / "model.bin.part2").write_bytes(b"d")
    with pytest.raises(UserError, match="4 bytes instead of 6: pip install --force-reinstall one two"):
        packaged.packaged_whisper(parts / "cache")
    assert list((parts / "cache").iterdir()) == []


def test_missing_packages_are_told_with_the_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaged, "_PACKAGES", ("no_such_package_here",))
    with pytest.raises(UserError, match=r"no-such-package-here: pip install 'cope-live\[offline\]'"):
        packaged.packaged_whisper(tmp_path)


def test_a_cache_folder_that_cannot_be_made_is_told(parts: Path) -> None:
    (parts / "cache").write_text("a file")
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        packaged.packaged_whisper(parts / "cache")
