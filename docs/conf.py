"""
How Sphinx builds the documentation: ``sphinx-build -W -n docs build/docs``.

The pages are plain reST that also reads well in a repository's browser. So a link to another
page is an ordinary link to its file (```Mesh <mesh.rst>`_``), which is made one to the built page
here; one that leads nowhere is a warning, and warnings are errors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

sys.path.insert(0, str(Path(__file__).parent.parent))

from derp import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "derp"
copyright = "the derp authors"  # Sphinx' own name for it
version = release = __version__

exclude_patterns = ["_build"]
nitpicky = True
highlight_language = "none"
smartquotes = False  # "--" is a part of flags here

html_theme = "furo"
html_title = f"derp {__version__}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

OUTSIDE = {
    "README.rst": "start",
    "README.zh.rst": "start-zh",
    "CHANGELOG.rst": "changelog",
    "CONTRIBUTING.rst": "contributing",
    "SECURITY.md": "security",
    "bench/README.rst": "benchmarks",
}
"""Files beside ``docs/`` that pages link to, and the pages that show them."""


class FileLinks(SphinxTransform):
    """Makes links to files links to pages."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        for link in list(self.document.findall(nodes.reference)):
            path = link.get("refuri", "")
            if not path or "://" in path:
                continue
            if path.endswith((".rst", ".md")):
                link.replace_self(self._page_link(link, path))
            else:  # a folder or file that is not among the pages
                link.replace_self(nodes.inline("", link.astext()))

    def _page_link(self, link: nodes.reference, path: str) -> nodes.Node:
        docname = self.env.docname
        # Links in a file that is included here are relative to the checkout.
        path = path.removeprefix("../").removeprefix("docs/")
        target = OUTSIDE.get(path) or path.removesuffix(".rst")
        page = addnodes.pending_xref(
            "",
            nodes.inline("", link.astext()),
            refdomain="std",
            reftype="doc",
            reftarget="/" + target,
            refdoc=docname,
            refexplicit=True,
            refwarn=True,
        )
        page.source, page.line = link.source, link.line
        return page


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_transform(FileLinks)
    return {"parallel_read_safe": True}
