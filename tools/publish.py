"""Point the badges, the notebooks' first cells and the website to your copy of this repository on GitHub.

    make publish REPO=owner/name

pyproject.toml says where the repository lives; this brings all other places in line with it. Run it
again whenever the repository moves.
"""

import re
import sys
from pathlib import Path

from course.files import write_text

HERE = Path(__file__).resolve().parent.parent
PLACES = ["README.md", "S5.ipynb", "S6.ipynb"]
SETTING = re.compile(r'^repository = "([^"]+)"(?=\r?$)', re.MULTILINE)  # Windows files have \r
NAME = re.compile(
    r"(?=[^/]{1,39}/)[A-Za-z0-9](-?[A-Za-z0-9])*/(?!\.{1,2}$)(?!.*\.git$)[A-Za-z0-9._-]{1,100}"
)


def current(folder=HERE):
    """The owner/name in pyproject.toml."""
    return SETTING.search((folder / "pyproject.toml").read_text(encoding="utf-8"))[1]


def website(repository):
    """Where GitHub Pages serves the repository's website."""
    owner, name = repository.split("/")
    return f"https://{owner}.github.io/" + (
        f"{name}/" if name.lower() != f"{owner}.github.io".lower() else ""
    )


def publish(new, folder=HERE):
    """Put `new` in all places; return how many there were, by file."""
    if not NAME.fullmatch(new):
        raise ValueError(f"{new!r} is not a repository on GitHub: write owner/name")
    old = current(folder)
    # In an address within an address, slashes are written as %2F.
    repository = "(/|%2F)".join(map(re.escape, old.split("/")))
    link = re.compile(
        rf"((?:github|github\.com|codespaces\.new)(?:/|%2F)){repository}(?![\w-]|\.\w)"
    )
    texts, counts = {}, {}
    for name in PLACES:
        text = (folder / name).read_bytes().decode("utf-8")
        text, links = link.subn(lambda match: match[1] + new.replace("/", match[2]), text)
        counts[name] = links + text.count(website(old))
        texts[name] = text.replace(website(old), website(new))
    text = (folder / "pyproject.toml").read_bytes().decode("utf-8")
    texts["pyproject.toml"] = SETTING.sub(f'repository = "{new}"', text)
    for (
        name,
        text,
    ) in texts.items():  # the setting comes last: until then the same command works again
        write_text(folder / name, text)
    return counts


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
