"""tools/publish.py: one place says where the repository lives, and all others follow."""

import re
import shutil
import sys
import urllib.parse

import pytest
from helpers import LESSONS, ROOT

from tools import publish

LINKS = {"README.md": 6, "CITATION.cff": 1} | {f"{lesson}.ipynb": 5 for lesson in LESSONS}
LINKS["S5.ipynb"] += 1  # to the playground
# What stands before owner/name in badges, first cells, commands that clone, and the citation.
BEFORE = [
    r"colab\.research\.google\.com/github/",
    r"kaggle\.com/kernels/welcome\?src=https://github\.com/",
    r"codespaces\.new/",
    r"lightning\.ai/new\?repo_url=https://github\.com/",
    r"git clone (?:--depth 1 )?https://github\.com/",
    r"repository-code: https://github\.com/",
]


@pytest.fixture
def course(tmp_path):
    for name in [*publish.PLACES, "pyproject.toml"]:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_links(folder, repository):
    """All links of all places, those to the website too, lead to the repository."""
    owner, name = repository.split("/")
    path = "" if name.lower() == f"{owner.lower()}.github.io" else f"{name}/"
    for place, count in LINKS.items():
        text = urllib.parse.unquote((folder / place).read_text(encoding="utf-8"))
        found = re.findall(rf"(?:{'|'.join(BEFORE)})([\w.-]+/[\w.-]+)", text)
        sites = re.findall(r"https://[\w.-]+\.github\.io/(?:[\w.-]+/)?", text)
        assert found == [repository] * (count - len(sites))
        assert sites == [f"https://{owner}.github.io/{path}"] * len(sites)


def test_all_places_agree_here():
    check_links(ROOT, publish.current())


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["Unix", "Windows"])
def test_all_places_follow_again_and_again(course, line_end):
    for path in course.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", line_end))
    before = content(course)
    old = publish.current(course)
    news = ["some-one/my.course", "a/my.course2", "a/my.course2", "Me/me.github.io"]
    for new in [*news, publish.PLACEHOLDER, old]:
        assert publish.move(new, course) == LINKS
        assert publish.current(course) == new
        check_links(course, new)
    assert content(course) == before, "nothing else has changed"


def test_an_interrupted_move_is_finished_by_the_same_command(course, monkeypatch):
    def stop_after_one(path, text):
        if path.name != "README.md":
            raise KeyboardInterrupt
        path.write_text(text, encoding="utf-8")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publish, "write_text", stop_after_one)
        publish.publish("a/b", course)
    publish.publish("a/b", course)
    check_links(course, "a/b")


def test_links_to_other_repositories_stay(course):
    """Those whose name only begins like the course's, or has another letter in place of a dot."""
    publish.publish("some-one/my.course", course)
    others = ["my.course-2", "my.course.js", "myxcourse"]
    text = " ".join(f"https://github.com/some-one/{name}" for name in others)
    links = "https://github.com/some-one/my.course. And github%2Fsome-one%2Fmy.course/"
    (course / "README.md").write_text(f"{text} {links}")
    assert publish.publish("a/b", course)["README.md"] == 2
    moved = "https://github.com/a/b. And github%2Fa%2Fb/"
    assert (course / "README.md").read_text() == f"{text} {moved}"


WRONG = ["", "name", "a/b/c", "https://github.com/a/b", "a b/c", 'a/b"', "-a/b", "a-/b", "a/b\n"]
WRONG += ["a/.", "a/..", "a/b.git", "a/b.x.git", publish.PLACEHOLDER]
WRONG += [f"{'a' * 40}/b", f"{'a-' * 20}a/b", f"a/{'b' * 101}"]


@pytest.mark.parametrize("wrong", WRONG)
def test_other_names_are_refused_before_anything_changes(course, wrong):
    before = content(course)
    with pytest.raises(ValueError, match="is not a repository on GitHub: write owner/name"):
        publish.publish(wrong, course)
    assert content(course) == before


LONGEST = f"{'a' * 39}/{'b' * 100}"


@pytest.mark.parametrize("name", [LONGEST, "a-" * 19 + "a/b", "a-b/c", "a/.github"])
def test_names_that_github_allows(course, name):
    publish.publish(name, course)
    assert publish.current(course) == name


def test_where_the_website_is():
    assert publish.website("me/course") == "https://me.github.io/course/"
    assert publish.website("Me/me.github.io") == "https://Me.github.io/"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name your repository"),
        (["a/b", "c/d"], "name your repository"),
        (["a b"], "'a b' is not a repository on GitHub"),
    ],
)
def test_wrong_arguments(monkeypatch, arguments, said):
    monkeypatch.setattr(sys, "argv", ["publish", *arguments])
    with pytest.raises(SystemExit, match=said):
        publish.main()


def test_the_command_says_what_it_changed(monkeypatch, capsys):
    monkeypatch.setattr(publish, "publish", lambda new: LINKS)
    monkeypatch.setattr(sys, "argv", ["publish", "a/b"])
    publish.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "README.md: 6 links now lead to https://github.com/a/b"
    assert len(said) == len(LINKS) + 1
