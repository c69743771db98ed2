"""How the site is built: `python -m sphinx -W --keep-going -b html docs docs/_build`."""

import os
import pathlib
import sys

DOCS = pathlib.Path(__file__).parent
os.environ["PYTHONPATH"] = str(DOCS.parent)  # of the tutorials' processes
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_extensions")]

import fconv_jax  # noqa: E402 - from the checkout, not from an installation

project = "fconv_jax"
author = "The fconv_jax authors"
copyright = f"2026, {author}"
release = version = fconv_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "mathml",
    "repository",
]
exclude_patterns = ["_build", "_extensions", "jupyter_execute", "requirements*"]
default_role = "py:obj"  # a docstring's `name` is a link where the reference has that name, else code

# Tutorials are executed, each from the start; an error or a cell of ten minutes (a busy machine) ends the build.
# DOCS_CACHE=1, for writing, keeps what was executed: it does not see that the library has changed.
nb_execution_mode = "cache" if os.environ.get("DOCS_CACHE") else "force"
nb_execution_cache_path = str(DOCS / "_build" / ".executed")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # what XLA says of slow compilation
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
math_numfig = False
html_math_renderer = "mathml"

html_theme = "sphinx_book_theme"
html_title = "fconv_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_source_button": False,
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
}
