"""Sphinx configuration; ``python -m sphinx -W -b html docs docs/_build`` builds the site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate import write_pages

import rustllm

project = "rustllm"
author = "The rustllm developers"
copyright = "The rustllm developers"
version = release = rustllm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
]
exclude_patterns = ["_build"]
default_role = "py:obj"  # `name` in a docstring is a link where there is something to link to
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# numpydoc's own tables would need a page for every member of every class.
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"rustllm {release}"
pygments_style = "friendly"
pygments_dark_style = "native"

# Pages that follow from the code are written before the sources are read.
write_pages(Path(__file__).parent / "_generated")
