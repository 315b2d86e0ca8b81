"""Point the badges, the notebooks' first cells and the website to your copy on GitHub.

    make publish REPO=owner/name

pyproject.toml says where the repository lives; this brings all other places in line with it. Run it
again whenever the repository moves. On GitHub, the workflow "links" runs it after a push.
"""

import re
import sys
from pathlib import Path

from course import LESSONS
from course.files import write_text

ROOT = Path(__file__).resolve().parent.parent
PLACES = ["README.md", "CITATION.cff", *(f"{lesson}.ipynb" for lesson in LESSONS)]
SETTING = re.compile(r'^repository = "([^"]+)"(?=\r?$)', re.MULTILINE)  # Windows files have \r
# Where a copy without a home seems to live. No account can have a dot in its name, so nobody can
# put a repository there, whose code would then run on the computers of those who follow the links.
PLACEHOLDER = "your.account/mnist-course"
OWNER = re.compile(r"(?=.{1,39}$)[A-Za-z0-9](-?[A-Za-z0-9])*")
NAME = re.compile(r"(?!\.{1,2}$)(?!.*\.git$)[A-Za-z0-9._-]{1,100}")


def current(folder=ROOT):
    """The owner/name in pyproject.toml."""
    return SETTING.search((folder / "pyproject.toml").read_text(encoding="utf-8"))[1]


def website(repository):
    """Where GitHub Pages serves the repository's website."""
    owner, name = repository.split("/")
    if name.lower() == f"{owner}.github.io".lower():
        return f"https://{owner}.github.io/"
    return f"https://{owner}.github.io/{name}/"


def is_repository(text):
    """Whether this can be an owner/name on GitHub."""
    owner, _, name = text.partition("/")
    return bool(OWNER.fullmatch(owner) and NAME.fullmatch(name))


def replace_links(text, old, new):
    """The text with its links to `new`, and how many there were."""
    owner, name = old.split("/")
    slash = "(/|%2F)"  # an address within an address has %2F
    repository = f"{re.escape(owner)}{slash}{re.escape(name)}"
    before = r"((?:github|github\.com|codespaces\.new)(?:/|%2F))"
    no_longer_name = r"(?![\w-]|\.\w)"
    link = re.compile(f"{before}{repository}{no_longer_name}")
    text, count = link.subn(lambda match: match[1] + new.replace("/", match[2]), text)
    count += text.count(website(old))
    return text.replace(website(old), website(new)), count


def publish(new, folder=ROOT):
    """Put `new` in all places; return how many there were, by file."""
    if not is_repository(new):
        raise ValueError(f"{new!r} is not a repository on GitHub: write owner/name")
    return move(new, folder)


def move(new, folder=ROOT):
    """The same for any name, the placeholder's too."""
    old = current(folder)
    counts = {}
    for name in PLACES:
        text = read_exactly(folder / name)
        text, counts[name] = replace_links(text, old, new)
        write_text(folder / name, text)
    # The setting comes last: until then, the same command finishes what was interrupted.
    setting = read_exactly(folder / "pyproject.toml")
    write_text(folder / "pyproject.toml", SETTING.sub(f'repository = "{new}"', setting))
    return counts


def read_exactly(path):
    """The text of a file with its own line endings."""
    return path.read_bytes().decode("utf-8")


def main():
    if len(sys.argv) != 2:
        sys.exit("name your repository: make publish REPO=owner/name")
    try:
        counts = publish(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    for name, count in counts.items():
        print(f"{name}: {count} links now lead to https://github.com/{sys.argv[1]}")
    print("Commit and push these files, and the buttons work.")


if __name__ == "__main__":
    main()
