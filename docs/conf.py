"""Settings of the site: sphinx-build -W docs build/docs."""

project = "numpyro_score"
author = "The numpyro_score developers"
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # equations without a network, when the pages are read, too
]
html_theme = "furo"
html_title = "numpyro_score"
html_copy_source = False
exclude_patterns = []
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# A class says what it is in its own docstring; its parts in the order of the file.
autodoc_default_options = {
    "members": True,
    "imported-members": True,
    "show-inheritance": True,
}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes and units, which types do not
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True


def setup(app):
    """Leave out what Python says of the fields of a NamedTuple: their class says more."""

    def skip(app, what, name, obj, skipped, options):
        return skipped or str(getattr(obj, "__doc__", "")).startswith("Alias for field number")

    app.connect("autodoc-skip-member", skip)
