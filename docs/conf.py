"""Settings of the site: `python -m sphinx -W docs docs/_build/html` builds it. What Sphinx has no setting for: tinymae_site.py.

Lessons are run when they have changed; after a change of the package, remove docs/lessons to run all of them again. The English
site is built first; its build ends with that of the Chinese one, in its folder zh. Lessons are run once for both.
"""
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]                    # tinymae_site, and this checkout's tinymae
os.environ.setdefault("MPLBACKEND", "Agg")

import tinymae  # noqa: E402  (found by the line above)

project = "tinymae"
author = "the tinymae authors"
release = version = tinymae.__version__
language = "en"
chinese = "language=zh_CN" in sys.argv
os.environ["LANGUAGE"] = "zh_CN" if chinese else "C"       # of what the package translates for a page
exclude_patterns = ["_build", "lessons_header.rst"]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosectionlabel",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "tinymae_site",
]
if not chinese:                                                 # both sites open the same notebooks
    extensions.append("jupyterlite_sphinx")
locale_dirs = ["locale", "../tinymae/locale"]                   # pages; lessons, which the terminal reads in Chinese as well
gettext_compact = True                                          # one catalog for all lessons

smartquotes = False                                             # '' is an empty string
default_role = "py:obj"                                         # `name` in docstrings: code, and a link where there is a page
autosectionlabel_prefix_document = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False
viewcode_line_numbers = True                                    # what the role :line: links to
mathjax_path = "mathjax/tex-svg-full.js"                        # glyphs inside, so that file:// needs nothing else
mathjax3_config = {"svg": {"mtextInheritFont": True}, "options": {"enableMenu": False}}

sphinx_gallery_conf = {
    "examples_dirs": str(HERE / "_build" / "lessons"),          # a copy: what a lesson draws is left there
    "gallery_dirs": "lessons",
    "filename_pattern": r"/[0-9]+_",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("tinymae_site.scrape_figures",),
    "reset_modules": (),
    "parallel": min(4, os.cpu_count() or 1),                    # lessons side by side
    "abort_on_example_error": True,
    "show_signature": False,
    "capture_repr": (),                                         # lessons print what they want to show
    "nested_sections": False,
    "write_computation_times": False,
    "css": (),                                                  # ours is enough
    "first_notebook_cell": "%pip install -q tinymae\n%load_ext tinymae.plot.notebook",
    "jupyterlite": {"use_jupyter_lab": False, "jupyterlite_contents": str(HERE / "_build" / "notebooks")},
}
jupyterlite_silence = True
jupyterlite_dir = str(HERE / "_build")
jupyterlite_build_command_options = {"piplite-wheels": str(HERE / "_build" / "wheels")}     # tinymae as it is here

html_theme = "pydata_sphinx_theme"
html_title = "tinymae"
html_theme_options = {
    "navbar_end": ["language-switch", "theme-switcher"],
    "header_links_before_dropdown": 10,
    "navbar_align": "left",
    "search_bar_text": "搜索本站……" if chinese else "Search the docs ...",
    "show_nav_level": 1,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"api/*": ["page-toc"], "numbers": ["page-toc"], "scaling": ["page-toc"]},
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}
html_favicon = "_static/favicon.svg"
html_sidebars = {page: [] for page in (                         # lessons and API have a list of their pages beside them
    "index", "search", "articles", "errata", "questions", "run", "glossary", "notation", "numbers", "scaling",
)}
html_static_path = ["_static", "_build/static"]                 # ours, and MathJax, copied there
html_css_files = ["tinymae.css"]
html_search_scorer = str(HERE / "_static" / "scorer.js")
templates_path = ["_templates"]
html_copy_source = False
html_show_sourcelink = False
html_search_options = {"dict": str(HERE / "_build" / "words.txt")} if chinese else {}
html_show_search_summary = False                                # would read other pages, which browsers forbid for file://
html_use_index = False
copybutton_selector = "div:not(.sphx-glr-script-out) > div.highlight pre"       # of code, not of what it printed
copyright = "tinymae 作者，MIT 许可" if chinese else "the tinymae authors, MIT licence"
