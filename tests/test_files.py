"""course/files.py: a file is replaced as a whole, or not at all."""

import os
import sys

import pytest
from helpers import files_in

from course.files import replacing, write_text


def test_a_text_is_written_with_its_folder(tmp_path):
    path = tmp_path / "new" / "ü.txt"
    write_text(path, "één\n")
    write_text(path, "zwei\n")
    assert path.read_bytes() == b"zwei\n"
    assert files_in(tmp_path) == ["ü.txt"]


@pytest.mark.parametrize("interruption", [OSError("no space"), KeyboardInterrupt()], ids=repr)
def test_an_interruption_leaves_the_old_file(tmp_path, interruption):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(interruption)), replacing(tmp_path / "a") as file:
        file.write(b"half")
        raise interruption
    assert (tmp_path / "a").read_bytes() == b"old"
    assert files_in(tmp_path) == ["a"]


def test_a_file_is_on_the_disk_before_it_replaces_another(tmp_path, monkeypatch):
    """Else a power cut could leave it empty. What has another name for the old file keeps that."""
    (tmp_path / "a").write_bytes(b"old")
    os.link(tmp_path / "a", tmp_path / "kept")
    steps = []
    replace = os.replace

    def note_replacement(old, new):
        steps.append("replaced")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", lambda number: steps.append(os.fstat(number).st_size))
    monkeypatch.setattr(os, "replace", note_replacement)
    write_text(tmp_path / "a", "new one")
    assert steps == [len("new one"), "replaced"]
    assert (tmp_path / "a").read_bytes() == b"new one"
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_two_processes_that_write_at_once_do_not_mix(tmp_path, monkeypatch):
    """Each has a temporary file of its own, and the last one counts."""
    with replacing(tmp_path / "a") as file:
        file.write(b"the first")
        monkeypatch.setattr(os, "getpid", lambda: -1)  # another process
        with replacing(tmp_path / "a") as other:
            other.write(b"the second, longer")
        assert (tmp_path / "a").read_bytes() == b"the second, longer"
    assert (tmp_path / "a").read_bytes() == b"the first"
    assert files_in(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="has other rights and links")
def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
