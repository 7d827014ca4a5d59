"""The site: `make docs` builds it into build/site, without network. It works from the file system as well."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

project = "DSA-reID"
html_title = "DSA-reID"
copyright = "the DSA-reID authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["*.py"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests run the notebooks; their outputs are in the files
html_theme = "furo"
html_static_path = ["extra.css"]
html_css_files = ["extra.css"]
html_copy_source = False
html_show_sphinx = False
default_role = "code"  # docstrings have names in single backquotes
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def setup(app):
    app.connect("autodoc-skip-member", lambda *found: _is_alias(found[3]) or None)


def _is_alias(member: object) -> bool:
    """Whether it is a field of a NamedTuple, of which Python says nothing but its number."""
    return str(member.__doc__).startswith("Alias for field number")
