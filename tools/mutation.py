"""Change the course's code in small ways, one at a time, and count which changes its tests notice.

    pip install cosmic-ray
    python -m tools.mutation --count 200 --seed 1 --out runs/mutation.json

It works on a copy of the repository. tests/README.md says what was found.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
FOLDERS = [".", "course", "tools", "benchmarks", "website"]
NOT_TESTED = [
    "conf.py",
    "conftest.py",
    "mutation.py",
]  # `make site`, the tests themselves, and this file
OTHERS = {  # the tests of modules that have none with their name
    "look": ["digitpad", "lens", "film", "bench"],
    "recipes": ["benchmarks", "measurements", "train"],
}
PATIENCE = 120  # seconds; a change that makes the tests run for ever counts as noticed


def places(path):
    """All changes that can be made to a file, by place: {(line, column): [(operator, occurrence)]}."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast_from_path

    tree, found = get_ast_from_path(path), {}
    for name in plugins.operator_names():
        operator = plugins.get_operator(name)
        if not operator.arguments():
            spots = [
                start
                for node in ast_nodes(tree)
                for start, _ in operator().mutation_positions(node)
            ]
            for occurrence, start in enumerate(spots):
                found.setdefault(start, []).append((name, occurrence))
    return found


def sample(count, seed):
    """A random choice of places, and of one change for each."""
    files = [path for folder in FOLDERS for path in sorted((HERE / folder).glob("*.py"))]
    files += sorted((HERE / "course").glob("*/*.py"))
    files = [path for path in files if path.name not in NOT_TESTED]
    everywhere = [(path, changes) for path in files for changes in places(path).values()]
    chance = random.Random(seed)
    chosen = chance.sample(everywhere, count)
    return [(path.relative_to(HERE), *chance.choice(changes)) for path, changes in chosen]


def tests_for(path):
    """The test files of a module; the others would notice a few changes more."""
    folder = path.parent.name
    stem = path.stem if folder in ("", "course", "tools") else folder
    stems = OTHERS.get(stem, [stem])
    return [
        test
        for test in sorted((HERE / "tests").glob("test_*.py"))
        if any(s in test.stem for s in stems)
    ]


def is_noticed(copy, tests):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
    ]
    try:
        done = subprocess.run([*command, *tests], cwd=copy, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="how many changes (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="seed for the choice (default: 1)")
    parser.add_argument(
        "--out", type=Path, help="file for the results (default: runs/mutation-SEED.json)"
    )
    args = parser.parse_args()
    args.out = args.out or HERE / "runs" / f"mutation-{args.seed}.json"
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    results = json.loads(args.out.read_text()) if args.out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "course")
        shutil.copytree(
            HERE, copy, ignore=shutil.ignore_patterns(".venv*", "runs", "site", "data", ".git")
        )
        if is_noticed(copy, ["tests"]):
            sys.exit(
                "The quick tests fail without any change, or take too long: then they notice nothing."
            )
        for path, name, occurrence in sample(args.count, args.seed)[len(results) :]:
            code = (HERE / path).read_text(encoding="utf-8")
            changed = mutate_code(code, plugins.get_operator(name)(), occurrence)
            lines = zip(code.splitlines(), changed.splitlines())
            line = next((n for n, (a, b) in enumerate(lines, 1) if a != b), 0)
            (copy / path).write_text(changed, encoding="utf-8")
            tests = [copy / test.relative_to(HERE) for test in tests_for(path)]
            noticed = is_noticed(copy, tests or ["tests"])
            (copy / path).write_text(code, encoding="utf-8")
            text = changed.splitlines()[line - 1].strip()
            results.append({"file": str(path), "line": line, "change": text, "noticed": noticed})
            print(
                f"{len(results):4} {'      ' if noticed else 'MISSED'} {path}:{line}: {text}",
                flush=True,
            )
            args.out.parent.mkdir(exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1) + "\n")
    report(results)


def report(results):
    """Print the share of changes that were noticed, by file."""
    made, noticed = Counter(), Counter()
    for result in results:
        made[result["file"]] += 1
        noticed[result["file"]] += result["noticed"]
    for file in sorted(made):
        print(f"| {file} | {noticed[file]} of {made[file]} |")
    print(f"| all | {noticed.total()} of {made.total()}: {noticed.total() / made.total():.0%} |")


if __name__ == "__main__":
    main()
