"""tools/publish.py: one place says where the repository lives, and all others follow."""

import json
import os
import re
import shutil
import subprocess
import urllib.parse

import pytest
from helpers import HERE

from tools import publish


@pytest.fixture
def course(tmp_path):
    for name in [*publish.PLACES, "pyproject.toml"]:
        shutil.copy(HERE / name, tmp_path)
    return tmp_path


def links(folder):
    """Every owner/name in the badges, first cells, clone commands and links to the website, by file."""
    before = "|".join(
        [
            r"colab\.research\.google\.com/github/",
            r"kaggle\.com/kernels/welcome\?src=https://github\.com/",
            r"codespaces\.new/",
            r"lightning\.ai/new\?repo_url=https://github\.com/",
            r"(?:= \\\"|clone )https://github\.com/",
        ]
    )
    address = re.compile(rf"(?:{before})([\w.-]+/[\w.-]+)")
    site = re.compile(r"https://([\w-]+)\.github\.io/([\w.-]*)/?")
    found = {}
    for name in publish.PLACES:
        text = urllib.parse.unquote((folder / name).read_text(encoding="utf-8"))
        sites = [
            f"{owner}/{repository or f'{owner}.github.io'}"
            for owner, repository in site.findall(text)
        ]
        found[name] = address.findall(text) + sites
    return found


LINKS = {"README.md": 6, "S5.ipynb": 5, "S6.ipynb": 5}


def test_all_places_agree_here():
    assert links(HERE) == {name: count * [publish.current()] for name, count in LINKS.items()}


def test_files_with_the_line_endings_of_windows_follow_too(course):
    for path in course.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    for new in ["ann/course", "bob/course"]:
        assert publish.publish(new, course) == LINKS and publish.current(course) == new
    assert b"\n" not in (course / "pyproject.toml").read_bytes().replace(b"\r\n", b"")


def test_all_places_follow_again_and_again(course):
    before = {name: (course / name).read_bytes() for name in publish.PLACES}
    old = publish.current(course)
    for new in [
        "some-one/my.course",
        "some-one/my.course2",
        "some-one/my.course2",
        "me/me.github.io",
        old,
    ]:
        counts = publish.publish(new, course)
        assert counts == LINKS
        assert publish.current(course) == new
        assert links(course) == {name: count * [new] for name, count in LINKS.items()}
        for lesson in ["S5.ipynb", "S6.ipynb"]:
            json.loads((course / lesson).read_text(encoding="utf-8"))
    assert before == {name: (course / name).read_bytes() for name in publish.PLACES}, (
        "nothing else changed"
    )
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
        "a/b.x.git",
        f"{'a' * 40}/b",
        f"{'a-' * 20}a/b",
        f"a/{'b' * 101}",
        "a-/b",
    ],
)
def test_other_names_are_refused_before_anything_changes(course, wrong):
    before = {path.name: path.read_bytes() for path in course.iterdir()}
    with pytest.raises(ValueError, match="is not a repository on GitHub: write owner/name"):
        publish.publish(wrong, course)
    assert before == {path.name: path.read_bytes() for path in course.iterdir()}


@pytest.mark.parametrize(
    ("repository", "address"),
    [
        ("me/course", "https://me.github.io/course/"),
        ("me/me.github.io", "https://me.github.io/"),
        ("Me/me.github.io", "https://Me.github.io/"),
    ],
)
def test_where_the_website_is(repository, address):
    assert publish.website(repository) == address


def test_links_to_other_repositories_stay(course):
    """Those whose name only begins like the course's, or would match where a dot stands for any letter."""
    publish.publish("some-one/my.course", course)
    names = ["my.course-2", "my.course.js", "myxcourse"]
    others = " ".join(f"https://github.com/some-one/{name}" for name in names)
    text = f"Not {others}, but https://github.com/some-one/my.course. And github%2Fsome-one%2Fmy.course/"
    (course / "README.md").write_text(text)
    assert publish.publish("a/b", course)["README.md"] == 2
    moved = (course / "README.md").read_text()
    assert moved == f"Not {others}, but https://github.com/a/b. And github%2Fa%2Fb/"


@pytest.mark.parametrize(
    "name", ["a" * 39 + "/" + "b" * 100, "a-" * 19 + "a/b", "a-b/c", "a/.github"]
)
def test_names_that_github_allows(course, name):
    publish.publish(name, course)
    assert publish.current(course) == name


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
@pytest.mark.parametrize(
    "wrong", ["a/b; touch here", "a/b$(touch here)", "'; touch here; '", '"; touch here; "']
)
def test_make_hands_over_the_name_as_it_is(tmp_path, wrong):
    shutil.copy(HERE / "Makefile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@" > arguments\n')
    python.chmod(0o755)
    for name in ["requirements.txt", ".venv/ready"]:
        (tmp_path / name).touch()
    os.utime(tmp_path / "requirements.txt", (0, 0))
    command = ["make", "publish", "REPO=" + wrong.replace("$", "$$")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "arguments").read_text() == f"-m|tools.publish|{wrong}|"
    assert not (tmp_path / "here").exists()


def test_the_command_says_what_it_changed(course, monkeypatch, capsys):
    really_publish = publish.publish
    monkeypatch.setattr(publish, "publish", lambda new: really_publish(new, course))
    monkeypatch.setattr("sys.argv", ["publish", "a/b"])
    publish.main()
    lines = [
        f"{name}: {count} links now lead to https://github.com/a/b" for name, count in LINKS.items()
    ]
    assert capsys.readouterr().out.splitlines()[:3] == lines
    for arguments, sentence in [
        ([], "name your repository"),
        (["a/b", "c/d"], "name your repository"),
        (["a b"], "'a b' is not a repository on GitHub"),
    ]:
        monkeypatch.setattr("sys.argv", ["publish", *arguments])
        with pytest.raises(SystemExit, match=sentence):
            publish.main()
