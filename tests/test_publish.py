"""tools/publish.py: one place says where the repository lives, and all others follow."""

import json
import re
import shutil

import pytest
from helpers import HERE

from tools import publish


@pytest.fixture
def course(tmp_path):
    for name in [*publish.PLACES, "pyproject.toml"]:
        shutil.copy(HERE / name, tmp_path)
    return tmp_path


def links(folder):
    """Every owner/name in the badges, first cells and clone commands, by file."""
    address = re.compile(
        r"(?:colab\.research\.google\.com/github/|(?:= \\\"|clone )https://github\.com/)([\w.-]+/[\w.-]+)"
    )
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in publish.PLACES}
    return {name: address.findall(text) for name, text in texts.items()}


LINKS = {"README.md": 3, "S5.ipynb": 2, "S6.ipynb": 2}


def test_all_places_agree_here():
    assert links(HERE) == {name: count * [publish.current()] for name, count in LINKS.items()}


def test_all_places_follow_again_and_again(course):
    before = {name: (course / name).read_bytes() for name in publish.PLACES}
    old = publish.current(course)
    for new in ["some-one/my.course", "some-one/my.course2", "some-one/my.course2", old]:
        counts = publish.publish(new, course)
        assert counts == LINKS
        assert publish.current(course) == new
        assert links(course) == {name: count * [new] for name, count in LINKS.items()}
        for lesson in ["S5.ipynb", "S6.ipynb"]:
            json.loads((course / lesson).read_text(encoding="utf-8"))
    assert before == {name: (course / name).read_bytes() for name in publish.PLACES}, "nothing else changed"
    assert len(list(course.iterdir())) == 4


def test_an_interrupted_move_is_finished_by_the_same_command(course, monkeypatch):
    really_write, done = publish.write_text, []

    def once(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(really_write(*arguments))

    monkeypatch.setattr(publish, "write_text", once)
    with pytest.raises(KeyboardInterrupt):
        publish.publish("a/b", course)
    monkeypatch.undo()
    publish.publish("a/b", course)
    assert links(course) == {name: count * ["a/b"] for name, count in LINKS.items()}


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "name",
        "a/b/c",
        "https://github.com/a/b",
        "a b/c",
        'a/b"',
        "-a/b",
        "a/b\n",
        "a/.",
        "a/..",
        "a/b.git",
    ],
)
def test_other_names_are_refused_before_anything_changes(course, wrong):
    before = {path.name: path.read_bytes() for path in course.iterdir()}
    with pytest.raises(ValueError, match="is not a repository on GitHub: write owner/name"):
        publish.publish(wrong, course)
    assert before == {path.name: path.read_bytes() for path in course.iterdir()}
