"""The pages of docs/ and both READMEs, read as text, without Sphinx: every row of the article map points at something, every
figure and command stands where it should, every public name has a page. Each rule is a function from a text to a list of
complaints; planted offenders show that it bites.
"""
import ast
import importlib
import re
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tinymae.__main__ import main
from tinymae.learn.articles import read_articles

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
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


# ---- the article map and the errata ------------------------------------------------------------------------------------

CELL = re.compile(r":cell:`(\d\d): ([^`]+)`")


def headings(lesson):
    return re.findall(r"^# %%.*\n# (.+)\n# -{3,}$", lesson, flags=re.MULTILINE)


def dead_cells(text):
    """Complaints: sections that :cell: names and that their lessons do not have."""
    known = {number: headings(lesson) for number, lesson in LESSONS.items()}
    cells = CELL.findall(text)
    return [f"lesson {number} has no section {name!r}" for number, name in cells if name not in known.get(number, [])]


def test_every_row_of_the_map_leads_to_a_lesson_and_a_line():
    """`read_articles` raises where one leads nowhere."""
    found = read_articles()
    assert [article.letter for article in found] == list("ABCDE") and sum(len(article.rows) for article in found) >= 60
    assert all(row.cells and row.code and row.what for article in found for row in article.rows)
    assert {number for article in found for row in article.rows for number, *_ in row.cells} >= {*range(3, 24)} - {22}


@pytest.mark.parametrize(("old", "new", "complaint"), [
    ("[07: One output, as a loop]", "[07: No such heading]", "'# No such heading' is in 0 lines of 07_attention.py"),
    ("`scores = q @ k.swapaxes`", "`scores = k @ q`", "'scores = k @ q' is in 0 lines of attention.py"),
    ("`scores = q @ k.swapaxes`", "`return`", "'return' is in "),
    ("[07: One output, as a loop](07_attention.py)", "a lesson", "'自注意力' leads to no lesson"),
])
def test_a_row_that_leads_nowhere_is_seen(tmp_path, monkeypatch, old, new, complaint):
    for path in (ROOT / "lessons").glob("[0-9a]*.*"):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), encoding="utf-8")
    text = (tmp_path / "articles.md").read_text("utf-8")
    assert old in text
    head, place, row = text.rpartition(old)                     # the last one: of article E
    (tmp_path / "articles.md").write_text(head + place.replace(old, new) + row, encoding="utf-8")
    monkeypatch.setattr("tinymae.learn.articles.lessons_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        read_articles()


def test_both_languages_lead_to_the_same():
    texts = ((ROOT / "lessons" / name).read_text("utf-8") for name in ("articles.md", "articles.zh-CN.md"))
    tables = [re.findall(r"^\| (?!in the article|文章里的位置|---)(.+) \|$", text, re.MULTILINE) for text in texts]
    english, chinese = ([[row.split(" | ")[i] for i in (0, 2, 3)] for row in table] for table in tables)
    assert english == chinese and len(english) >= 60


HEADINGS = {                                                    # of the articles, but for what tinymae does not have
    "A": "Vit; MAE; 首先来看看神魔是 Transformer; 1、位置嵌入; 2、自注意力层; 3、残差链接和层归一化; "
         "1) 残差设计; 2) 层归一化; 4、前馈网络",
    "B": "Multi-head",
    "C": "1.Transformer 整体结构; 2. Transformer 的输入; 2.1 单词 Embedding; 2.2 位置 Embedding; "
         "3. Self-Attention（自注意力机制）; 3.1 Self-Attention 结构; 3.2 Q, K, V 的计算; 3.3 Self-Attention 的输出; "
         "3.4 Multi-Head Attention; 4. Encoder 结构; "
         "4.1 Add & Norm; 4.2 Feed Forward; 4.3 组成 Encoder; 5. Decoder 结构; 5.1 第一个 Multi-Head Attention; "
         "5.2 第二个 Multi-Head Attention; 5.3 Softmax 预测输出单词; 6. Transformer 总结",
    "D": "二、高层次理解; 三、通过实例来理解Tensor; Encoding; 四、高层次理解Self-Attention; Self-Attention的细节; "
         "Self-Attention矩阵乘法; Multi-headed 完善; 整体过程; 五、使用位置编码; 编码规则; 六、残差神经网络 Residuals; "
         "七、Decoder; 八、Linear 和 Softmax层; 九、回顾训练过程; Loss Function; Target Model Outputs; Trained Model Outputs",
    "E": "自注意力; 位置编码; 总结; 小结; 练习",
}


@pytest.mark.parametrize("name", ["articles.md", "articles.zh-CN.md"])
def test_the_map_has_every_heading_of_the_articles(name):
    """As the article has it, so that a reader's search finds it."""
    parts = re.split(r"^## ([A-E]) · .+$", (ROOT / "lessons" / name).read_text("utf-8"), flags=re.MULTILINE)
    for letter, table in zip(parts[1::2], parts[2::2], strict=True):
        places = "\n".join(re.findall(r"^\| (.+?) \| ", table, re.MULTILINE))
        assert [heading for heading in HEADINGS[letter].split("; ") if heading not in places] == [], letter


def test_the_command_prints_the_map(capsys):
    assert main(["articles", "e"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("E. 67 自注意力") and "练习 2" in output and re.search(r"06_learned_positions\.py:\d+\)", output)
    assert re.search(r"code: tinymae.ops.positional\.py:\d+", output) and "A." not in output


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.rst")), ids=lambda path: path.name)
def test_every_named_section_is_there(page):
    assert dead_cells(page.read_text("utf-8")) == []


def test_every_mistake_has_a_cell_that_asserts_the_difference():
    errata = re.split(r"^   \* - ([A-E], .+)$", (DOCS / "errata.rst").read_text("utf-8"), flags=re.MULTILINE)
    assert len(errata) > 2 * 25
    for place, text in zip(errata[1::2], errata[2::2], strict=True):
        cells = CELL.findall(text)
        assert cells, place
        for number, heading in cells:
            (cell,) = (part for part in LESSONS[number].split("# %%") if re.match(rf".*\n# {re.escape(heading)}\n", part))
            asserts = re.search(r"^(?!#).*\bassert", cell, re.MULTILINE)       # in its code, not in its prose
            assert asserts, f"{place}: {number}: {heading} asserts nothing"


# ---- the fifteen questions -----------------------------------------------------------------------------------------------

def test_every_question_has_its_lesson():
    questions = re.split(r"^   \* - (\d+)$", (DOCS / "questions.rst").read_text("utf-8"), flags=re.MULTILINE)
    numbered = dict(zip(questions[1::2], questions[2::2], strict=True))
    assert list(numbered) == [str(number) for number in range(1, 16)]
    assert [number for number, text in numbered.items() if not CELL.search(text)] == []


# ---- the glossary ------------------------------------------------------------------------------------------------------

def unknown_names(text):
    """Complaints: names of the glossary that the package does not have; terms with neither a name nor a lesson."""
    everything = "\n".join(SOURCES.values())
    complaints = []
    for row in rows(text):
        module, _, name = (re.findall(r"`~([\w.]+)`", row[3]) or [""])[0].rpartition(".")
        literal = re.findall(r"``(.+)``", row[3])
        if module and not hasattr(importlib.import_module(module), name):
            complaints.append(f"{row[0]}: {module} has no {name}")
        if literal and not re.search(rf"(?<!\w){re.escape(literal[0])}(?!\w)", everything):
            complaints.append(f"{row[0]}: {literal[0]} is not in the package")
        if not module and not literal and not CELL.search(row[3]):
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
    command = command.split(" && ")[-1].replace("tinymae --lang zh", "tinymae")         # an option of all commands
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


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_what_the_readme_links_to_is_in_the_repository():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    assert [link for link in links if link not in listed and not any(file.startswith(f"{link}/") for file in listed)] == []
    assert "figures/restored.png" in links


def test_both_readmes_have_the_same_code_and_links():
    for pattern in (r"^```python\n.*?^```$", r"^```\nmy layer.*?^```$", r"\]\(((?!README)[^)]+)\)"):
        english, chinese = (re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE) for text in (README, README_ZH))
        english, chinese = ([re.sub(r"#.*|\.zh-CN(?=\.md)", "", link) for link in links] for links in (english, chinese))
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
    listed = set(re.findall(r"^   (?:\w+ <)?(?:api/)?([\w./]+)>?$", toctrees, flags=re.MULTILINE))
    assert pages - {"index", "lessons_header"} <= listed
