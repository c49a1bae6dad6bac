"""Settings of the site: `python -m sphinx -W docs docs/_build/html` builds it. What Sphinx has no setting for: tinymae_site.py.

Lessons are run when they have changed; after a change of the package, remove docs/lessons to run all of them again.
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
exclude_patterns = ["_build", "lessons_header.rst"]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosectionlabel",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "tinymae_site",
]

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
    "abort_on_example_error": True,
    "show_signature": False,
    "capture_repr": (),                                         # lessons print what they want to show
    "nested_sections": False,
    "write_computation_times": False,
    "css": (),                                                  # ours is enough
}

html_theme = "basic"
html_title = "tinymae"
html_static_path = ["_static", "_build/static"]                 # ours, and MathJax, copied there
html_css_files = ["tinymae.css"]
templates_path = ["_templates"]
html_sidebars = {"**": []}
html_copy_source = False
html_show_search_summary = False                                # would read other pages, which browsers forbid for file://
html_use_index = False
pygments_style = "friendly"
