"""Bars as SVG: a row for each name, its figure in words at the end, so that nothing is said by colour alone.

In:  a title, the unit, and figures by name. Out: a document of its own that follows the reader's choice of light or dark.
"""

from collections.abc import Mapping
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, BAR, TOP = 760, 280, 90, 26, 16, 44

STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328; }
    .title { font-weight: 600; font-size: 15px; }
    .note { fill: #59636e; }
    .own { font-weight: 600; }
    .bar { fill: #d1d9e0; stroke: #59636e; }
    .bar.own { fill: #0969da; stroke: #0969da; }
    line { stroke: #59636e; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; }
      .note { fill: #9198a1; }
      .bar { fill: #3d444d; stroke: #9198a1; }
      .bar.own { fill: #4493f8; stroke: #4493f8; }
      line { stroke: #9198a1; }
    }
"""


def number(value: float) -> str:
    """Three digits that count, and no more decimals than they need: 301,000, 27.6, 0.031."""
    if abs(value) < 1000 and value == round(value):
        return str(round(value))
    digits = 0
    while abs(value) * 10**digits < 100 and digits < 3:
        digits += 1
    if abs(value) < 1000:
        return f"{value:,.{digits}f}"
    size = 10 ** (len(str(round(abs(value)))) - 3)
    return f"{round(value / size) * size:,.0f}"


def bars(title: str, unit: str, figures: Mapping[str, float], own: str, better: str) -> str:
    """own: how the names begin that stand out. better: which bars are, in words."""
    height = TOP + len(figures) * ROW + 12
    longest = max(figures.values(), default=0) or 1
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">',
        f"  <style>{STYLE}  </style>",
        f'  <text class="title" x="8" y="18">{escape(title)}</text>',
        f'  <text class="note" x="8" y="35">{escape(unit)}; {escape(better)}</text>',
    ]
    for row, (name, value) in enumerate(figures.items()):
        y = TOP + row * ROW
        mark = " own" if name.startswith(own) else ""
        width = max(1.0, value / longest * (WIDTH - LEFT - RIGHT))
        base = y + BAR - 3
        lines += [
            f'  <text class="name{mark}" x="{LEFT - 8}" y="{base}" text-anchor="end">{escape(name)}</text>',
            f'  <rect class="bar{mark}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>',
            f'  <text class="figure{mark}" x="{LEFT + width + 6:.1f}" y="{base}">{number(value)}</text>',
        ]
    lines += [f'  <line x1="{LEFT}" x2="{LEFT}" y1="{TOP - 4}" y2="{height - 8}"/>', "</svg>", ""]
    return "\n".join(lines)
