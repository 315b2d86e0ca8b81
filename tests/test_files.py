"""course/files.py: a file is replaced as a whole, or not at all."""

import pytest
from helpers import files_in

from course.files import replacing, write_text


def test_a_text_is_written_with_its_folder(tmp_path):
    write_text(tmp_path / "new" / "ü.txt", "één\n")
    write_text(tmp_path / "new" / "ü.txt", "zwei\n")
    assert (tmp_path / "new" / "ü.txt").read_bytes() == b"zwei\n" and files_in(tmp_path) == ["ü.txt"]


@pytest.mark.parametrize("interruption", [OSError("no space"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_file(tmp_path, interruption):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(interruption)):
        with replacing(tmp_path / "a") as file:
            file.write(b"half")
            raise interruption
    assert (tmp_path / "a").read_bytes() == b"old" and files_in(tmp_path) == ["a"]
