"""publish.py: one place tells where the repository lives, and all others follow."""

import json
import re
import shutil

import pytest
from test_notebooks import HERE

import publish


@pytest.fixture
def course(tmp_path):
    for name in [*publish.PLACES, "pyproject.toml"]:
        shutil.copy(HERE / name, tmp_path)
    return tmp_path


def links(folder):
    """Every owner/name in the badges and first cells, by file."""
    colab = re.compile(r"colab\.research\.google\.com/github/([^/]+/[^/]+)/blob/main/(\w+)\.ipynb")
    cell = re.compile(r'REPOSITORY = \\"https://github\.com/([^"\\]+)\\"')
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in publish.PLACES}
    return {
        name: [match[0] for match in colab.findall(text)] + cell.findall(text) for name, text in texts.items()
    }


def test_all_places_agree_here():
    assert links(HERE) == {name: 2 * [publish.current()] for name in publish.PLACES}


def test_all_places_follow_again_and_again(course):
    before = {name: (course / name).read_bytes() for name in publish.PLACES}
    old = publish.current(course)
    for new in ["some-one/my.course", "some-one/my.course2", "some-one/my.course2", old]:
        counts = publish.publish(new, course)
        assert counts == dict.fromkeys(publish.PLACES, 2)
        assert publish.current(course) == new
        assert links(course) == {name: [new, new] for name in publish.PLACES}
        for lesson in ["S5.ipynb", "S6.ipynb"]:
            json.loads((course / lesson).read_text(encoding="utf-8"))
    assert before == {name: (course / name).read_bytes() for name in publish.PLACES}, "nothing else changed"
    assert len(list(course.iterdir())) == 4


def test_an_interrupted_move_is_finished_by_the_same_command(course, monkeypatch):
    really_replace, done = publish.os.replace, []

    def once(*paths):
        if done:
            raise KeyboardInterrupt
        done.append(really_replace(*paths))

    monkeypatch.setattr(publish.os, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        publish.publish("a/b", course)
    monkeypatch.undo()
    publish.publish("a/b", course)
    assert links(course) == {name: ["a/b", "a/b"] for name in publish.PLACES}


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
    with pytest.raises(ValueError, match="is no repository on GitHub: write owner/name"):
        publish.publish(wrong, course)
    assert before == {path.name: path.read_bytes() for path in course.iterdir()}
