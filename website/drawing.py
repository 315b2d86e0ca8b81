"""Draw a network as a row of blocks: the higher, the larger its maps; the wider, the more maps."""

from html import escape

COLOURS = {
    "image": "#888888",
    "convolution": "#3d8bfd",
    "max-pooling": "#f0851e",
    "average pooling": "#f0851e",
    "linear layer": "#2ca02c",
}
HEIGHT = 84  # of a map of 28×28 cells
LOWEST = 6
GAP = 4


def draw_blocks(layers, name):
    """Return the drawing as SVG, without line breaks."""
    blocks = []
    texts = []
    x = 0
    for layer in layers:
        if layer["kind"] not in COLOURS:
            continue
        text = describe_block(layer)
        width = 3 + 2.2 * count_maps(layer) ** 0.5
        blocks.append(draw_block(layer, x, width, text))
        texts.append(text)
        x += width + GAP
    label = escape(f"{name}, from left to right: {', '.join(texts)}")
    size = f"0 0 {x - GAP:.1f} {HEIGHT}"
    return f'<svg viewBox="{size}" role="img" aria-label="{label}">{"".join(blocks)}</svg>'


def describe_block(layer):
    """Such as "convolution: 10 × 26 × 26", or "linear layer: 10"."""
    maps, height, width = layer["shape"]
    if height > 1:
        return f"{layer['kind']}: {maps} × {height} × {width}"
    return f"{layer['kind']}: {count_maps(layer)}"


def count_maps(layer):
    """The number of maps; a linear layer has single numbers in their place."""
    return layer["shape"][2] if layer["kind"] == "linear layer" else layer["shape"][0]


def draw_block(layer, x, width, text):
    """A rectangle in the middle of the row, with a text for the mouse."""
    height = max(LOWEST, HEIGHT * layer["shape"][1] / 28)
    y = (HEIGHT - height) / 2
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    colour = COLOURS[layer["kind"]]
    return f'<rect {place} rx="2" fill="{colour}"><title>{escape(text)}</title></rect>'
