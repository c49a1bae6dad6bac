"""What is built and uploaded: no folder of code is forgotten, no file of the tests, and one version stands everywhere."""
import configparser
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

import tinymae

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"              # not in the source distribution
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_wheel_carries_every_folder_of_code():
    """Packages are listed by hand: `find:` does not see the lessons, which stand beside tinymae/ and go into it."""
    folders = [path.parent.relative_to(ROOT) for name in ("tinymae", "lessons") for path in (ROOT / name).rglob("*.py")]
    found = {".".join(folder.parts) for folder in folders}
    packages = {name.removeprefix("tinymae.") if name.startswith("tinymae.lessons") else name
                for name in SETUP["options"]["packages"].split()}
    assert found == packages


def test_the_wheel_carries_every_file_that_is_not_code():
    anywhere, below = (SETUP["options.package_data"][key].split() for key in ("*", "tinymae"))
    others = [path for path in (ROOT / "tinymae").rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert others and [
        path for path in others if not any(fnmatch(path.name, pattern) for pattern in anywhere)
        and not any(fnmatch(path.relative_to(ROOT / "tinymae").as_posix(), pattern) for pattern in below)
    ] == []


def left_out(manifest, names):
    """The names that no line of a MANIFEST.in takes in."""
    taken = set()
    for command, *words in map(str.split, manifest.splitlines()):
        folder = words.pop(0) if command == "recursive-include" else None
        for name in names:
            inside, place = folder is None, name
            if folder is not None:
                inside, place = name.startswith(f"{folder}/"), name.rpartition("/")[2]
            # a * takes no slash
            if inside and any(place.count("/") == word.count("/") and fnmatch(place, word) for word in words):
                taken.add(name)
    return [name for name in names if name not in taken]


def test_the_source_distribution_carries_what_git_does():
    """All of docs, lessons, benchmarks and tests: so the tests run from it. (Of figures/, the README links the pictures.)"""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = subprocess.run(["git", "-c", "core.quotePath=off", "ls-files", "docs", "lessons", "benchmarks", "tests"],
                            cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True).stdout.splitlines()
    assert len(listed) > 100 and left_out(read("MANIFEST.in"), listed) == []


def test_left_out_bites():
    manifest = "include docs/*.py\nrecursive-include tests *.py *.npz\n"
    taken = ["docs/conf.py", "tests/a.py", "tests/golden/b.npz"]
    forgotten = ["docs/api/x.py", "docs/index.rst", "tests/c.json", "lessons/d.py"]
    assert left_out(manifest, taken + forgotten) == forgotten


def test_one_version():
    version = tinymae.__version__
    assert re.search(r"^version: (.+)$", read("CITATION.cff"), re.M)[1] == version
    assert re.search(r"^## ([\d.]+)", read("CHANGELOG.md"), re.M)[1] == version


@pytest.mark.skipif(not WORKFLOWS.is_dir(), reason="this is no checkout")
def test_the_workflow_runs_what_the_readme_says():
    commands = re.findall(r"^python -m pip install -e .* && .*$", read("README.md"), re.M)[:2]
    assert len(commands) == 2
    workflow = (WORKFLOWS / "test.yml").read_text(encoding="utf-8")
    assert [command for command in commands if f"- run: {command}\n" not in workflow] == []
    oldest = SETUP["options"]["python_requires"].removeprefix(">=")
    assert f'python: ["{oldest}", ' in workflow
    newest = re.findall(r"Python :: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.M)[-1]
    assert f', "{newest}"]' in workflow
