"""CITATION.cff can be read by those who cite the course, and agrees with the changelog."""

import datetime
import re

import yaml
from helpers import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
CHANGELOG = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
VERSIONS = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", CHANGELOG, re.MULTILINE)


def test_the_version_is_the_newest_of_the_changelog():
    cited = CITATION["version"], CITATION["date-released"].isoformat()
    assert cited == VERSIONS[0], "CITATION.cff and docs/changelog.md should say the same"
    assert len(VERSIONS) == CHANGELOG.count("\n## ")


def test_the_changelog_goes_back_in_time():
    numbers = [[int(part) for part in version.split(".")] for version, _ in VERSIONS]
    dates = [datetime.date.fromisoformat(date) for _, date in VERSIONS]
    assert numbers == sorted(numbers, reverse=True)
    assert dates == sorted(dates, reverse=True)


def test_the_citation_has_what_its_format_asks_for():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()
    assert CITATION["authors"] == [{"name": "The contributors"}]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"# {CITATION['title']}\n" in readme
    assert CITATION["license"] == "MIT"
    assert "(LICENSE)" in readme and "licenses/by/4.0" in readme, "of code, and of texts"
