"""What the site needs beyond Sphinx's settings: MathJax, the lessons' pictures and columns, the roles of the article map, the
package as a wheel for notebooks in the browser, the live page, and the Chinese site.

    :line:`tinymae/ops/attention.py: scores = q @ k`    the one line that holds this text, as a link to its source page
    :cell:`05: The formula, as a loop`                  a section of lesson 5
"""
import inspect
import json
import posixpath
import re
import shutil
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from docutils import nodes
from PIL import Image
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.search.zh import SearchChinese
from sphinx.util.docutils import SphinxRole
from sphinx_gallery.directives import imgsgnode
from sphinx_gallery.scrapers import figure_rst

from tinymae.cli.play import PYODIDE
from tinymae.learn.prose import code_in_language, from_lessons
from tinymae.messages import translated
from tinymae.play.server import write_site

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = HERE / "_build"
PICTURES = BUILD / "pictures"           # a file for each picture of a lesson: what it is called on the site
MATHJAX = "3.2.2"
GALLERY = {
    "Download Jupyter notebook": "下载 notebook", "Download Python source code": "下载 Python 源码",
    "Download zipped": "下载压缩包",
}
_FIELD = type(NamedTuple("_Any", [("field", int)]).field)


def setup(app):
    install_mathjax()
    copy_lessons()
    build_wheel()
    write_words()
    app.add_search_language(ChineseSearch)
    app.add_role("line", Line())
    app.add_role("cell", LessonCell())
    app.connect("autodoc-process-docstring", docstring_to_rest, priority=400)       # before numpydoc, at 500
    app.connect("autodoc-skip-member", skip_field)
    app.connect("source-read", number_title)
    app.connect("source-read", translate_gallery)
    app.connect("source-read", article_map)
    app.connect("doctree-read", pair_columns)
    app.connect("doctree-read", link_sections)
    app.connect("html-page-context", finish_page)
    app.connect("build-finished", finish_site)


class ChineseSearch(SearchChinese):
    """Sphinx's own, whose pages ask for a stemmer called after the language: there is the English one, for Latin words."""

    language_name = "English"


# ---- before the build -----------------------------------------------------------------------------------------------

def install_mathjax():
    """MathJax from its npm package into _build/static, once."""
    package = BUILD / "npm" / "node_modules" / "mathjax"
    if not _is_mathjax(package):
        npm = shutil.which("npm")
        if npm is None:
            raise ExtensionError("npm is not installed, and the site takes MathJax from it: install Node.js, which brings npm")
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(BUILD / "npm"), f"mathjax@{MATHJAX}"]
        (BUILD / "npm").mkdir(parents=True, exist_ok=True)
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode or not _is_mathjax(package):
            raise ExtensionError(f"`{' '.join(command)}` failed; is the network down?\n{result.stderr}")
    static = BUILD / "static" / "mathjax"
    static.mkdir(parents=True, exist_ok=True)
    for file in (package / "LICENSE", package / "es5" / "tex-svg-full.js"):
        shutil.copy2(file, static)


def _is_mathjax(package):
    description = package / "package.json"
    return description.is_file() and json.loads(description.read_text("utf-8"))["version"] == MATHJAX


def copy_lessons():
    """The lessons, and what stands above their list, into _build/lessons, where they will be run."""
    folder = BUILD / "lessons"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(HERE / "lessons_header.rst", folder / "GALLERY_HEADER.rst")
    for lesson in (ROOT / "lessons").glob("[0-9]*.py"):
        shutil.copy(lesson, folder)


def build_wheel():
    """The package as it is here, as a wheel, which the notebooks in the browser install."""
    folder = BUILD / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    # Setuptools would build in a folder beside the sources, where files of an earlier version may lie, and stay there.
    base = f"--config-settings=--global-option=build --build-base={BUILD / 'wheel'}"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), base, str(ROOT)]
    shutil.rmtree(BUILD / "wheel", ignore_errors=True)
    subprocess.run(command, check=True)


def write_words():
    """The glossary's Chinese terms into _build/words.txt: the search finds each as a whole, as well as its parts."""
    rows = re.findall(r"^   [^|\n]+\|([^|\n]+)\|", (HERE / "glossary.rst").read_text("utf-8"), flags=re.MULTILINE)
    words = sorted(set(re.findall("[\u4e00-\u9fff]{2,}", " ".join(rows))))
    (BUILD / "words.txt").write_text("\n".join(words), encoding="utf-8")


# ---- lessons ---------------------------------------------------------------------------------------------------------

def scrape_figures(block, block_vars, gallery_conf):
    """The pictures that a cell has saved in figures/, in that order. They are moved, so that the next cell's are new again.

    Lessons run side by side in one folder: a lesson's pictures are those that its source names, `NAME.png` or `NAME_{x}.png`.
    """
    lesson = Path(block_vars["src_file"])
    names = re.findall(r"([\w{}]+)\.png", lesson.read_text("utf-8"))
    own = "|".join(re.sub(r"\{\w+\}", r"\\w+", name) for name in names)
    drawn = [path for path in (lesson.parent / "figures").rglob("*.png") if re.fullmatch(own, path.stem)]
    pages = []
    drawn.sort(key=lambda path: path.stat().st_mtime_ns)
    for picture, path in zip(drawn, block_vars["image_path_iterator"], strict=False):
        with Image.open(picture) as opened:                     # its caption says what there is to see, and how to read it
            caption = " ".join(opened.info["Description"].split())
        shutil.move(picture, path)
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / picture.stem).write_text(Path(path).name, encoding="utf-8")         # for the links of `finish_page`
        pages.append(figure_rst([path], gallery_conf["src_dir"], fig_titles=caption))
    return "".join(pages)


def number_title(app, docname, source):
    """`Positional encoding · 位置编码` becomes `5 · Positional encoding`, or `5 · 位置编码` on the Chinese site."""
    found = re.fullmatch(r"lessons/0*(\d+)_\w+", docname)
    if found:
        title = re.search(r"^(.+) · (.+)\n=+$", source[0], flags=re.MULTILINE)
        if title is None:
            raise ExtensionError(f"{docname}: expected a title `English · 中文`, underlined with =")
        numbered = f"{found[1]} · {title[1 + (app.config.language == 'zh_CN')]}"
        source[0] = source[0].replace(title[0], f"{numbered}\n{'=' * 2 * len(numbered)}", 1)


def translate_gallery(app, docname, source):
    """The words of sphinx-gallery below a lesson, which it has in English only."""
    if docname.startswith("lessons/") and app.config.language == "zh_CN":
        time = r"\*\*Total running time of the script:\*\* \((.+) minutes (.+) seconds\)"
        source[0] = re.sub(time, r"**运行用时**：\1 分 \2 秒", source[0])
        for words, translation in GALLERY.items():
            source[0] = source[0].replace(f":download:`{words}", f":download:`{translation}")


def article_map(app, docname, source):
    """The map of the articles, whose links lead to files for readers of the repository: here they lead to pages."""
    if docname != "articles":
        return
    path = ROOT / "lessons" / ("articles.zh-CN.md" if app.config.language == "zh_CN" else "articles.md")
    app.env.note_dependency(path)
    text = path.read_text("utf-8")
    text = re.sub(r"\[(\d\d: .+?)\]\(\d\d_\w+\.py\)", r"{cell}`\1`", text)
    text = re.sub(r"\[[\w/]+\.py\]\(\.\./(tinymae/[\w/]+\.py)\) `([^`]+)`", r"{line}`\1: \2`", text)
    text = re.sub(r"` · (?=\{(?:cell|line)\})", "` ", text)      # each link has a line of its own
    text = re.sub(r"\[[^\]]+\]\(\.\./docs/(\w+)\.rst\)", r"{doc}`\1`", text)
    source[0] = re.sub(r" *\[[^\]]+\]\(articles(\.zh-CN)?\.md\)", "", text)      # each page has a switch of its own


def pair_columns(app, document):
    """Put each cell of a lesson into a row of two columns: its prose, and its code with output and pictures."""
    if app.env.docname == "articles":                           # the class of the errata's table, for narrow screens
        for table in document.findall(nodes.table):
            table["classes"].append("map")
    if not re.match(r"lessons/\d", app.env.docname):
        return
    chinese = app.config.language == "zh_CN"
    for section in list(document.findall(nodes.section)):
        row, children = None, []
        for child in section.children:
            if isinstance(child, nodes.comment):                # sphinx-gallery's line numbers, between prose and code
                continue
            if isinstance(child, (nodes.title, nodes.section, addnodes.only)) or "sphx-glr-timing" in child["classes"]:
                row = None
                children.append(child)
                continue
            column = "work" if _is_work(child) else "prose"
            if row is None or (column == "prose" and "work" in row):
                row = {}
                children.append(nodes.container(classes=["cell"]))
            if column not in row:
                row[column] = nodes.container(classes=[column])
                children[-1] += row[column]
            row[column] += _folded(child, chinese) if child.get("language") == "Python" else child
        section.children = []
        section += children


def link_sections(app, document):
    """In a lesson, the name of a section in quotation marks leads to it."""
    if not re.match(r"lessons/\d", app.env.docname):
        return
    names = {section.next_node(nodes.title).astext(): section["ids"][0] for section in document.findall(nodes.section)}
    for text in list(document.findall(nodes.Text)):
        if not isinstance(text.parent, nodes.paragraph):
            continue
        parts = re.split("(?<=[\"“])(" + "|".join(map(re.escape, names)) + ")(?=[\"”])", text.astext())
        if len(parts) > 1:
            links = [nodes.reference("", part, internal=True, refid=names[part]) if part in names else nodes.Text(part)
                     for part in parts if part]
            text.parent.replace(text, links)


def _folded(code, chinese):
    """The code of a cell, with its comments in the page's language; if it begins with imports, they are folded."""
    text = code_in_language(code.rawsource, from_lessons)
    found = re.match(r"(?:(?:from|import) .+\n(?:(?: .*|\))\n)*|\n)+", text)
    folds = found and found[0].count("\n") >= 3 and len(found[0]) < len(text)
    parts = (found[0].strip("\n"), text[found.end():]) if folds else (text,)
    *imports, rest = (nodes.literal_block(part, part, **code.attributes) for part in parts)
    if not imports:
        return [rest]
    lines = parts[0].count("\n") + 1
    lines = f"（{lines} 行）" if chinese else f" ({lines} lines)"
    summary = f"<details class='imports'><summary>import …{lines}</summary>"
    return [nodes.raw("", summary, format="html"), *imports, nodes.raw("", "</details>", format="html"), rest]


def _is_work(node):
    """Whether a node of a lesson's page is code, output or a picture."""
    return isinstance(node, imgsgnode) or node.get("language") == "Python" or "sphx-glr-script-out" in node["classes"]


# ---- docstrings ------------------------------------------------------------------------------------------------------

def docstring_to_rest(app, what, name, obj, options, lines):
    """Docstrings are written for readers of the code: an indented block is shown as it stands, a lone * or _ is no markup."""
    if hasattr(obj, "_fields") or is_dataclass(obj):
        lines += _fields(obj)
    rest, literal, sections = [], False, False
    for i, line in enumerate(lines):
        sections = sections or bool(re.fullmatch("-{3,}", "".join(lines[i + 1 : i + 2])))       # of numpydoc: Parameters, ...
        indented = line.startswith("    ")
        if not sections and indented and not literal and not (i and lines[i - 1].strip()):
            rest += [".. code-block:: none", ""]
            literal = True
        elif line.strip() and not indented:
            literal = False
        rest.append(line if literal else _escaped(line))
    lines[:] = rest


def _fields(owner):
    """numpydoc's section Attributes, from the comments beside the fields of a NamedTuple or a dataclass."""
    field = r"^    (\w+): ([^=#\n]+?)(?: *= [^#\n]+?)?(?: +# (.+(?:\n {20,}# .+)*))?$"
    found = re.findall(field, inspect.getsource(owner), flags=re.MULTILINE)
    if not any(comment for _, _, comment in found):
        return []
    described = [[f"{name} : {kind}", "    " + re.sub(r"\n +#", "", comment)] for name, kind, comment in found]
    return ["", "Attributes", "----------", *(line for pair in described for line in pair)]


def skip_field(app, what, name, obj, skip, options):
    """A field of a NamedTuple says "Alias for field number 0"; `_fields` says more. Matplotlib adds `set` to figures."""
    return True if isinstance(obj, _FIELD) or getattr(obj, "__module__", "") == "matplotlib.artist" else None


def _escaped(line):
    """A line of prose with backslashes before what reST would take for markup, but for `code` and the names of parameters."""
    head, colon, line = line.rpartition(" : ") if re.match(r"[\w*, ]+ : ", line) else ("", "", line)
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"[*|]|_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    return head + colon + re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", "".join(parts))        # `name`_forward


# ---- roles -----------------------------------------------------------------------------------------------------------

class Line(SphinxRole):
    """`FILE: TEXT` -> a link to the line of FILE that holds TEXT."""

    def run(self):
        file, _, text = self.text.partition(": ")
        self.env.note_dependency(ROOT / file)                   # its lines move
        lines = (ROOT / file).read_text("utf-8").splitlines()
        found = [number for number, line in enumerate(lines, 1) if text in line]
        if len(found) != 1:
            where = f"{self.env.docname}, line {self.lineno}"
            raise ExtensionError(f"{where}: {text!r} is in {len(found)} lines of {file}; :line: needs a text that is in one")
        page = posixpath.relpath("_modules/" + file.removesuffix(".py"), posixpath.dirname(self.env.docname))
        label = nodes.literal("", f"{posixpath.basename(file)}:{found[0]}")
        return [nodes.reference("", "", label, refuri=f"{page}.html#line-{found[0]}", internal=True, reftitle=text)], []


class LessonCell(SphinxRole):
    """`NN: HEADING` -> a link to that section of lesson NN; an unknown heading is Sphinx's warning."""

    def run(self):
        number, _, heading = self.text.partition(": ")
        lessons = list((ROOT / "lessons").glob(f"{number}_*.py"))
        if len(lessons) != 1:
            raise ExtensionError(f"{self.env.docname}, line {self.lineno}: {len(lessons)} lessons have the number {number!r}")
        target = nodes.fully_normalize_name(f"lessons/{lessons[0].stem}:{heading}")
        label = nodes.inline("", f"{int(number)} · {translated(heading, 'lessons')}")
        reference = addnodes.pending_xref(
            "", label, reftype="ref", refdomain="std", reftarget=target,
            refdoc=self.env.docname, refexplicit=True, refwarn=True,
        )
        self.set_source_info(reference)
        return [reference], []


# ---- the pages -------------------------------------------------------------------------------------------------------

def finish_page(app, pagename, templatename, context, doctree):
    """Where the page is in the other language, and an address for each line of a source page."""
    root, page = "../" * pagename.count("/"), "/".join(map(quote, pagename.split("/")))
    chinese = app.config.language == "zh_CN"
    context["other_language"] = f"{root}{'..' if chinese else 'zh'}/{page}.html"
    context["chinese"] = chinese
    fonts = "googleapis"                                        # JupyterLite's button would load one from there
    context["css_files"] = [file for file in context["css_files"] if fonts not in str(file.filename)]
    if chinese and "body" in context:
        for folder, up in (("../lite/", "../"), ("play/", "../")):
            context["body"] = context["body"].replace(f'href="{folder}', f'href="{up}{folder}')
    if pagename.startswith("lessons/") and "body" in context:
        context["body"] = re.sub(r"figures/(\w+)\.png(?!\w)", _linked, context["body"])
    if pagename.startswith("_modules/"):
        number = r'<span class="linenos">( *(\d+))</span>'
        context["body"] = re.sub(number, r'<span class="linenos" id="line-\2">\1</span>', context["body"])


def _linked(found):
    """The name of a picture, as a lesson prints it, as a link to the picture."""
    file = PICTURES / found[1]
    return f'<a href="../_images/{file.read_text("utf-8")}">{found[0]}</a>' if file.is_file() else found[0]


def finish_site(app, exception):
    """After the English pages: the live page in play/, and the Chinese site in zh/."""
    if exception or app.builder.name != "html" or app.config.language == "zh_CN":
        return
    write_site(Path(app.outdir, "play"), PYODIDE)
    subprocess.run([sys.executable, str(HERE / "catalogs.py"), "--check"], check=True)        # lists what is missing or stale
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-D", "language=zh_CN", str(app.srcdir), str(Path(app.outdir, "zh"))]
    subprocess.run(command, check=True)
    print(f"\n{Path(app.outdir) / 'index.html'}")
