"""course/files.py: a file is replaced as a whole, or not at all."""

import os

import pytest
from helpers import files_in

from course import files
from course.files import owning, replacing, write_text


def test_a_text_is_written_with_its_folder(tmp_path):
    write_text(tmp_path / "new" / "ü.txt", "één\n")
    write_text(tmp_path / "new" / "ü.txt", "zwei\n")
    assert (tmp_path / "new" / "ü.txt").read_bytes() == b"zwei\n" and files_in(tmp_path) == [
        "ü.txt"
    ]


@pytest.mark.parametrize("interruption", [OSError("no space"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_file(tmp_path, interruption):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(interruption)):
        with replacing(tmp_path / "a") as file:
            file.write(b"half")
            raise interruption
    assert (tmp_path / "a").read_bytes() == b"old" and files_in(tmp_path) == ["a"]


def test_two_processes_that_write_at_once_do_not_mix(tmp_path, monkeypatch):
    """Each has a temporary file of its own, and the last one counts."""
    with replacing(tmp_path / "a") as file:
        file.write(b"the first")
        monkeypatch.setattr(os, "getpid", lambda: -1)  # another process
        with replacing(tmp_path / "a") as other:
            other.write(b"the second, longer")
        assert (tmp_path / "a").read_bytes() == b"the second, longer"
    assert (tmp_path / "a").read_bytes() == b"the first" and files_in(tmp_path) == ["a"]


def test_a_file_is_owned_however_its_path_is_written(tmp_path, monkeypatch):
    """Within one process a second block is welcome; a lock file that somebody has deleted is no error."""
    monkeypatch.chdir(tmp_path)
    with owning("new/folder/a"), owning(tmp_path / "new" / "folder" / "a"):
        assert files_in(tmp_path) == [".a.lock"]
        os.remove("new/folder/.a.lock")


def test_where_files_cannot_be_locked_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)  # as on Windows
    with owning(tmp_path / "a"):
        write_text(tmp_path / "a", "mine")
    assert (tmp_path / "a").read_text() == "mine"
