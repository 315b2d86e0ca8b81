"""Draw a network as a row of blocks: the higher a block, the larger its maps; the wider, the more of them."""

from html import escape

COLOURS = {
    "image": "#888888",
    "convolution": "#3d8bfd",
    "max-pooling": "#f0851e",
    "average pooling": "#f0851e",
    "linear layer": "#2ca02c",
}
HEIGHT = 84  # of a map of 28×28 cells
GAP = 4


def draw_network(layers, name):
    """Return the drawing as SVG, without line breaks."""
    x, blocks, steps = 0, [], []
    for layer in layers:
        if layer["kind"] not in COLOURS:
            continue
        maps, height, width = layer["shape"]
        if layer["kind"] == "linear layer":
            maps, height, width = width, 1, 1
        tall, wide = max(6, HEIGHT * height / 28), 3 + 2.2 * maps**0.5
        what = (
            f"{layer['kind']}: {maps} × {height} × {width}"
            if height > 1
            else f"{layer['kind']}: {maps}"
        )
        steps.append(what)
        blocks.append(
            f'<rect x="{x:.1f}" y="{(HEIGHT - tall) / 2:.1f}" width="{wide:.1f}" height="{tall:.1f}" rx="2" '
            f'fill="{COLOURS[layer["kind"]]}"><title>{escape(what)}</title></rect>'
        )
        x += wide + GAP
    label = escape(f"{name}, from left to right: {', '.join(steps)}")
    return (
        f'<svg viewBox="0 0 {x - GAP:.1f} {HEIGHT}" role="img" aria-label="{label}">'
        + "".join(blocks)
        + "</svg>"
    )
