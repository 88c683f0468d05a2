"""The picture at the top of the README: a request, the tools that an application has, and the call that a model writes.

`python docs/picture.py` writes docs/call-light.svg and docs/call-dark.svg, which GitHub shows by its theme.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

COLOURS = {
    "light": {"text": "#1f2328", "soft": "#59636e", "line": "#d1d9e0", "box": "#f6f8fa", "mark": "#2f6f9f"},
    "dark": {"text": "#f0f6fc", "soft": "#9198a1", "line": "#3d444d", "box": "#151b23", "mark": "#6cb0e0"},
}
"""Colours by theme: those of GitHub's pages, and the blue of the figures."""

SANS = "-apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"

REQUEST = (
    "“Hi, I need to ship a package to",
    "New York. It weighs about 5",
    "kilograms. Can you tell me how",
    "much it will cost?”",
)
TOOLS = ("calculate_shipping_cost(", "  weight: number,", "  destination: string)")
CALL = ("calculate_shipping_cost(", '  destination="New York",', "  weight=5)")


def render_picture(theme: str) -> str:
    """Return the picture as SVG.

    Args:
        theme: "light" or "dark".
    """
    colour = COLOURS[theme]
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 250" width="880" height="250" role="img"',
        ' aria-label="A user says: Hi, I need to ship a package to New York. It weighs about 5 kilograms. Can you tell '
        "me how much it will cost? The application has the tool calculate_shipping_cost. FunctionGemma, tuned on "
        "your tools, writes calculate_shipping_cost(destination=&quot;New York&quot;, weight=5). The application runs "
        'it.">\n',
        _box(10, 10, 262, 108, colour, "a user says", REQUEST, SANS),
        _box(10, 132, 262, 108, colour, "your application has tools, such as", TOOLS, MONO),
        _box(596, 62, 274, 126, colour, "your application gets a call", CALL, MONO, "and runs it"),
        f'<rect x="346" y="70" width="176" height="110" rx="10" fill="{colour["mark"]}"/>\n',
        _text(434, 104, "FunctionGemma", "#ffffff" if theme == "light" else "#0d1117", 17, SANS, "middle", 600),
        _text(434, 128, "270 M parameters", "#ffffff" if theme == "light" else "#0d1117", 13, SANS, "middle"),
        _text(434, 150, "tuned on your tools", "#ffffff" if theme == "light" else "#0d1117", 13, SANS, "middle"),
        _arrow(272, 64, 340, 104, colour["soft"]),
        _arrow(272, 186, 340, 146, colour["soft"]),
        _arrow(522, 125, 590, 125, colour["soft"]),
        "</svg>\n",
    ]
    return "".join(parts)


def _box(
    x: int, y: int, width: int, height: int, colour: dict[str, str], title: str, lines: tuple[str, ...], font: str,
    foot: str = "",
) -> str:  # fmt: skip
    """Return a box with a title and lines of text."""
    size = 13 if font == SANS else 12
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{colour["box"]}" '
        f'stroke="{colour["line"]}"/>\n',
        _text(x + 14, y + 21, title, colour["soft"], 12, SANS),
        *(_text(x + 14, y + 43 + 18 * n, line, colour["text"], size, font) for n, line in enumerate(lines)),
    ]
    if foot:
        parts.append(_text(x + 14, y + height - 14, foot, colour["soft"], 12, SANS))
    return "".join(parts)


def _text(x: int, y: int, text: str, fill: str, size: int, font: str, anchor: str = "start", weight: int = 400) -> str:
    style = f'font-family="{font}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" fill="{fill}" {style} xml:space="preserve">{escape(text, quote=False)}</text>\n'


def _arrow(x: int, y: int, to_x: int, to_y: int, colour: str) -> str:
    """Return a line with a head at its end."""
    length = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
    ahead, aside = (to_x - x) / length, (to_y - y) / length
    head = " ".join(
        f"{to_x - 9 * ahead + side * 5 * aside:.1f},{to_y - 9 * aside - side * 5 * ahead:.1f}" for side in (1, -1)
    )
    return (
        f'<line x1="{x + 6}" y1="{y}" x2="{to_x - 6 * ahead:.1f}" y2="{to_y - 6 * aside:.1f}" stroke="{colour}" '
        f'stroke-width="2"/>\n<polygon points="{to_x},{to_y} {head}" fill="{colour}"/>\n'
    )


if __name__ == "__main__":
    for one in COLOURS:
        Path(__file__).with_name(f"call-{one}.svg").write_text(render_picture(one), encoding="utf-8")
