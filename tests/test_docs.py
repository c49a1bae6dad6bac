"""The pages of docs/ and both READMEs, read as text, without Sphinx: every row of the article map points at something, every
figure and command stands where it should, every public name has a page. Each rule is a function from a text to a list of
complaints; planted offenders show that it bites.
"""
import ast
import importlib
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tinymae.__main__ import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MAPS = {language: (DOCS / name).read_text("utf-8") for language, name in (("en", "articles.rst"), ("zh", "articles.zh.rst"))}
GLOSSARY, NUMBERS = ((DOCS / name).read_text("utf-8") for name in ("glossary.rst", "numbers.rst"))
README, README_ZH = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted((ROOT / "tinymae").rglob("*.py"))}
LESSONS = {path.name[:2]: path.read_text("utf-8") for path in sorted((ROOT / "lessons").glob("[0-9]*.py"))}


TABLE = ".. csv-table::\n   :delim: |\n\n   the row | of | the heads | is skipped\n"


def rows(text):
    """The rows of a page's csv-tables, without their header rows: lists of cells."""
    found = []
    for table in re.split(r"^\.\. csv-table::", text, flags=re.MULTILINE)[1:]:
        lines = re.match(r".*\n(?:   :.+\n)*\n((?:   .+\n?)+)", table)[1].splitlines()
        found += [[cell.strip() for cell in line.split("|")] for line in lines[1:]]
    return found


# ---- the article map ---------------------------------------------------------------------------------------------------

WANTED = {                                                      # article: the lessons that its rows must name, in their order
    "A": ["16", "15", "16", "18", "13", "03", "04", "07", "04", "05", "08"],
    "B": ["04", "05", "15", "04"],
    "C": ["09", "02", "03", "04", "05", "08", "09", "06", "10", "10", "11", "03"],
    "D": ["09", "09", "04", "05", "03", "10", "11", "11", "12"],
    "E": ["04", "03", "14", "09", "03"],
}
CELL = re.compile(r":cell:`(\d\d): ([^`]+)`")
LINE = re.compile(r":line:`([^:`]+): ([^`]+)`")
PICTURE = re.compile(r"``(\w+\.png)``")


def headings(lesson):
    return re.findall(r"^# %%.*\n# (.+)\n# -{3,}$", lesson, flags=re.MULTILINE)


def dead_cells(text):
    """Complaints: sections that :cell: names and that their lessons do not have."""
    known = {number: headings(lesson) for number, lesson in LESSONS.items()}
    cells = CELL.findall(text)
    return [f"lesson {number} has no section {name!r}" for number, name in cells if name not in known.get(number, [])]


def dead_rows(text):
    """Complaints: what a row of the map points at and is not there."""
    complaints = []
    for row in rows(text):
        section, cells, line, picture = row[0], CELL.findall(row[2]), LINE.findall(row[3]), PICTURE.findall(row[4])
        if not cells or not line:
            complaints.append(f"{section}: no lesson, or no line of code")
        complaints += dead_cells(row[2])
        for file, code in line:
            if sum(code in line for line in SOURCES.get(file, "").splitlines()) != 1:
                complaints.append(f"{section}: {code!r} is not in exactly one line of {file}")
        drawn = "".join(LESSONS.get(number, "") for number, _ in cells)
        for name in picture:
            if not any(re.fullmatch(re.sub(r"{\w+}", r"\\w+", file), name) for file in re.findall(r'"([\w{}]+\.png)"', drawn)):
                complaints.append(f"{section}: its lessons do not draw {name}")
    return complaints


def articles(text):
    """{"A": the rows of article A, ...}: its sections' titles start with the letter."""
    parts = re.split(r"^([A-E])\. .+\n-{3,}\n", text, flags=re.MULTILINE)
    return {letter: rows(part) for letter, part in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("language", MAPS)
def test_the_map_points_at_something(language):
    assert dead_rows(MAPS[language]) == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.rst")), ids=lambda path: path.name)
def test_every_named_section_is_there(page):
    assert dead_cells(page.read_text("utf-8")) == []


@pytest.mark.parametrize("language", MAPS)
@pytest.mark.parametrize("article", WANTED)
def test_every_section_of_an_article_has_its_lesson(article, language):
    assert [CELL.search(row[2])[1] for row in articles(MAPS[language])[article]] == WANTED[article]


def test_both_languages_point_at_the_same():
    english, chinese = ([row[2:] for row in rows(MAPS[language])] for language in ("en", "zh"))
    assert english == chinese


@pytest.mark.parametrize(("cell", "line", "picture", "complaint"), [
    (":cell:`03: No such heading`", ":line:`tinymae/ops/softmax.py: def softmax_forward`", "", "has no section"),
    (":cell:`99: Exercises`", ":line:`tinymae/ops/softmax.py: def softmax_forward`", "", "has no section"),
    (":cell:`03: Exercises`", ":line:`tinymae/ops/softmax.py: no such line`", "", "not in exactly one line"),
    (":cell:`03: Exercises`", ":line:`tinymae/ops/softmax.py: return`", "", "not in exactly one line"),
    (":cell:`03: Exercises`", ":line:`tinymae/ops/nowhere.py: def`", "", "not in exactly one line"),
    (":cell:`03: Exercises`", "", "", "no lesson, or no line"),
    (":cell:`03: Exercises`", ":line:`tinymae/ops/softmax.py: def softmax_forward`", "``nowhere.png``", "do not draw"),
])
def test_a_row_that_points_at_nothing_is_seen(cell, line, picture, complaint):
    (found,) = dead_rows(f"{TABLE}   1 | x | {cell} | {line} | {picture}\n")
    assert complaint in found


def test_a_good_row_is_left_alone():
    row = "1 | x | :cell:`03: Exercises` | :line:`tinymae/ops/softmax.py: def softmax_forward` | ``positional_2d.png``"
    assert dead_rows(f"{TABLE}   {row}\n") == []


# ---- the fifteen questions -----------------------------------------------------------------------------------------------

def test_every_question_has_its_lesson():
    questions = re.split(r"^   \* - (\d+)$", (DOCS / "questions.rst").read_text("utf-8"), flags=re.MULTILINE)
    numbered = dict(zip(questions[1::2], questions[2::2], strict=True))
    assert list(numbered) == [str(number) for number in range(1, 16)]
    assert [number for number, text in numbered.items() if not CELL.search(text)] == []


# ---- the glossary ------------------------------------------------------------------------------------------------------

def unknown_names(text):
    """Complaints: names of the glossary that the package does not have."""
    everything = "\n".join(SOURCES.values())
    complaints = []
    for row in rows(text):
        module, _, name = (re.findall(r"`~([\w.]+)`", row[3]) or [""])[0].rpartition(".")
        literal = re.findall(r"``(.+)``", row[3])
        if module and not hasattr(importlib.import_module(module), name):
            complaints.append(f"{row[0]}: {module} has no {name}")
        if literal and not re.search(rf"(?<!\w){re.escape(literal[0])}(?!\w)", everything):
            complaints.append(f"{row[0]}: {literal[0]} is not in the package")
        if not module and not literal:
            complaints.append(f"{row[0]}: no name")
    return complaints


def test_glossary():
    terms = rows(GLOSSARY)
    assert len(terms) >= 60 and all(len(row) == 4 and row[0] and re.search("[\u4e00-\u9fff]|BLEU", row[1]) for row in terms)
    assert len({row[0] for row in terms}) == len(terms)
    assert unknown_names(GLOSSARY) == []


@pytest.mark.parametrize("name", ["`~tinymae.ops.softmax.softmin`", "``nonsense_name``", "nothing"])
def test_an_unknown_name_is_seen(name):
    assert len(unknown_names(f"{TABLE}   a | b | | {name}\n")) == 1


# ---- numbers and commands ----------------------------------------------------------------------------------------------

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-\d+)?")
SETTINGS = {"2.5", "3.11", "2.13", "95"}                        # of the README, no results: versions, options


def numbers(text):
    return set(NUMBER.findall(text))


def prose(text):
    """A README without its fenced blocks, and without what stands between backticks."""
    return re.sub(r"`[^`]+`", "", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(text):
    """The commands of a README: lines of its fenced blocks, and what stands between backticks, that start with python."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [" ".join(line.split()) for line in lines]
    return {line for line in lines if line.startswith("python ")}


def published(text):
    """The results of a README: decimals, large numbers and percentages, but for its settings."""
    found = re.findall(rf"({NUMBER.pattern})( %)?", prose(text))
    return {number for number, percent in found if percent or "." in number or "," in number or "e" in number} - SETTINGS


def test_every_published_figure_is_on_the_numbers_page():
    assert published(README) - numbers(NUMBERS) == set()
    assert published("a table | 12.3 | with 45 % and 6,789 but 10 minutes and `0.1`") == {"12.3", "45", "6,789"}


def test_every_figure_has_its_command():
    """Each table of the numbers page stands below the command that prints its numbers."""
    for before in NUMBERS.split(".. csv-table::")[:-1]:
        assert re.search(r"\.\. code-block:: none\n\n   python .+\n\n$", before), before[-200:]


def refused(command, capsys):
    """Complaints: a file that is not there, a command of tinymae that is not, or an option that its help does not list."""
    command = command.split(" && ")[-1]
    files = [word for word in command.split()[1:2] if word.endswith(".py")]
    complaints = [f"{command}: there is no {file}" for file in files if not (ROOT / file).exists()]
    if command.startswith("python -m tinymae"):
        words = [word for word in command.split()[3:] if not word.startswith("COMMAND")]
        named = words[:2] if words[:1] in (["train"], ["evaluate"]) else [word for word in words[:1] if word[0] != "-"]
        with pytest.raises(SystemExit) as ended:
            main([*(named or ["demo"]), "--help"])
        listed = capsys.readouterr().out
        complaints += [f"{command}: no such command"] if ended.value.code else []
        complaints += [f"{command}: no {option}" for option in re.findall(r"--[a-z-]+", command) if option not in listed]
    return complaints


def test_every_command_exists(capsys):
    of_numbers = re.findall(r"^   (python .+)$", NUMBERS, flags=re.MULTILINE)
    of_numbers += [" ".join(command.split()) for command in re.findall(r"``(python [^`]+)``", NUMBERS)]
    assert len(of_numbers) > 15
    for command in sorted({*commands(README), *of_numbers}):
        assert refused(command, capsys) == []


@pytest.mark.parametrize(("command", "complaint"), [
    ("python -m tinymae train mea --out DIR", "no such command"), ("python -m tinymae train mae --put DIR", "no --put"),
    ("python lessons/00_nothing.py", "there is no"),
])
def test_a_command_that_does_not_exist_is_seen(command, complaint, capsys):
    assert complaint in refused(command, capsys)[0]


def blocks(text):
    """The Python programs of a README."""
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


MODELS_PAGE = (DOCS / "api" / "models.rst").read_text("utf-8")
PROGRAMS = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", MODELS_PAGE, re.MULTILINE)


@pytest.mark.parametrize("program", PROGRAMS, ids=["mae", "vit", "transformer", "nn.Transformer"])
def test_a_program_of_the_models_page_runs(program):
    names = {}
    with threadpool_limits(1, user_api="blas"):
        exec(textwrap.dedent(program), names)
    assert np.isfinite(names["loss"])


def test_the_training_run_prints_what_the_readme_says(capsys):
    (program,) = [block for block in blocks(README) if "AdamW" in block]
    with threadpool_limits(1, user_api="blas"):
        exec(program, {})
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    said = [float(loss) for loss in re.search(r"# ((?:\d\.\d+, )+\d\.\d+);", program)[1].split(", ")]
    assert losses == pytest.approx(said, abs=0.003) and losses[-1] < losses[0] / 50


def test_the_gradient_check_prints_what_the_readme_says(capsys):
    (program,) = [block for block in blocks(README) if "format_rows" in block]
    exec(program, {})
    said = re.search(r"^```\n(my layer.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)[1]
    without_noise = [re.sub(r"\de-\d+  ok", "ok", text) for text in (capsys.readouterr().out, said)]
    assert without_noise[0] == without_noise[1]


def test_both_readmes_have_the_same_commands():
    assert commands(README) == commands(README_ZH) and len(commands(README)) > 20


def test_both_readmes_have_the_same_numbers():
    assert numbers(prose(README)) == numbers(prose(README_ZH))


def test_both_readmes_have_the_same_code_and_links():
    for pattern in (r"^```python\n.*?^```$", r"^```\nmy layer.*?^```$", r"\]\(((?!README)[^)]+)\)"):
        english, chinese = (re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE) for text in (README, README_ZH))
        english, chinese = ([re.sub(r"#.*|\.zh(?=\.rst)", "", link) for link in links] for links in (english, chinese))
        assert english and english == chinese                   # but for comments, and pages that exist in both languages
    assert "(README.zh-CN.md)" in README and "(README.md)" in README_ZH


# ---- the API reference -------------------------------------------------------------------------------------------------

def public_names(source):
    """{name: whether it has a docstring} of a module: itself, its functions and classes, and their methods."""
    module = ast.parse(source)
    found = {"": bool(ast.get_docstring(module))}
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
            found[node.name] = bool(ast.get_docstring(node))
            if isinstance(node, ast.ClassDef):
                methods = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name[0] != "_"]
                found |= {f"{node.name}.{method.name}": bool(ast.get_docstring(method)) for method in methods}
    return found


def test_every_module_has_its_place():
    pages = "".join(path.read_text("utf-8") for path in sorted((DOCS / "api").glob("*.rst")))
    documented = re.findall(r"automodule:: (\S+)", pages)
    modules = {file.removesuffix(".py").replace("/", ".") for file in SOURCES if not file.endswith("__init__.py")}
    assert sorted(documented) == sorted(modules), "docs/api: one automodule for each module of the package"


# a hypothesis of hypotheses.py is its name and the sentence that it returns, a form of a word in phrasebook.py is its name
NAMES_SAY_IT = {"tinymae/gradcheck/hypotheses.py", "tinymae/text/grammar.py"}


@pytest.mark.parametrize("file", [file for file, source in SOURCES.items() if source.strip() and file not in NAMES_SAY_IT])
def test_every_public_name_is_documented(file):
    assert [name for name, documented in public_names(SOURCES[file]).items() if not documented] == []


def test_a_name_without_a_docstring_is_seen():
    names = public_names('"""A module."""\ndef f():\n    pass\nclass A:\n    """A."""\n    def g(self):\n        pass\n')
    assert names == {"": True, "f": False, "A": True, "A.g": False}


def test_every_page_is_reached():
    toctrees = "".join(path.read_text("utf-8") for path in (DOCS / "index.rst", DOCS / "api" / "index.rst"))
    pages = {path.stem for folder in (DOCS, DOCS / "api") for path in folder.glob("*.*") if path.suffix in (".rst", ".md")}
    listed = set(re.findall(r"^   (?:api/)?(\S+)$", toctrees, flags=re.MULTILINE))
    assert pages - {"index", "lessons_header"} <= listed
