"""Accuracy against cost as SVG, written by hand: points, their names, the front as a staircase."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 44, 56


@dataclass(frozen=True)
class Point:
    """One model."""

    label: str
    cost: float
    accuracy: float
    kind: str
    """"front", "dominated" or "teacher"."""


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers that cover a range: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [k * step for k in range(first, last + 1)]


def scaled(unit: str, largest: float) -> tuple[float, str]:
    """What to divide a figure by, and the unit that it then has."""
    letter, base = {"seconds": ("s", 1.0), "bytes": ("B", 1.0), "pj": ("J", 1e12)}.get(
        unit, ("", 1.0)
    )
    value = largest / base
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")):
        if value >= scale and (scale == 1.0 or letter != "s"):
            return scale * base, prefix + letter
    for scale, prefix in ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if value >= scale:
            return scale * base, prefix + letter
    return base, letter


def svg(title: str, cost: str, unit: str, points: Sequence[Point]) -> str:
    """The plot as a text. Equal points share a mark; labels step aside where they would meet."""
    divide, named = scaled(unit, max(p.cost for p in points))
    xs, ys = [p.cost / divide for p in points], [p.accuracy for p in points]

    def spread(values: list[float], least: float) -> list[float]:
        low, high = min(values), max(values)
        room = max(0.12 * (high - low), least)
        return ticks(low - room, high + room)

    across, up = spread(xs, 0.02 * max(xs)), spread(ys, 0.05)
    while up[-2] >= 100:
        up.pop()

    def x(value: float) -> float:
        span = across[-1] - across[0]
        return LEFT + (value - across[0]) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - up[0]) / (up[-1] - up[0]) * (HEIGHT - TOP - BOTTOM)

    def number(value: float, step: float) -> str:
        return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for value in across:
        out.append(
            f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" '
            'stroke="#e4e4e4"/>'
            f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
            f"{number(value, across[1] - across[0])}</text>"
        )
    for value in up:
        out.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            'stroke="#e4e4e4"/>'
            f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">'
            f"{number(value, up[1] - up[0])}</text>"
        )
    axis = f"{cost}, {named}" if named else cost
    out.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">'
        f"{escape(axis)}</text>"
        f'<text transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        'text-anchor="middle">accuracy, %</text>'
    )
    best = sorted((p for p in points if p.kind == "front"), key=lambda p: p.cost)
    if len(best) > 1:
        path = f"M{x(best[0].cost / divide):.1f},{y(best[0].accuracy):.1f}"
        for point in best[1:]:
            path += f" H{x(point.cost / divide):.1f} V{y(point.accuracy):.1f}"
        out.append(f'<path d="{path}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>')
    marks = {
        "front": 'fill="#1f77b4"',
        "dominated": 'fill="white" stroke="#777" stroke-width="1.5"',
        "teacher": 'fill="#d62728"',
    }
    labels: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda p: (p.cost, p.accuracy)):
        px, py = x(point.cost / divide), y(point.accuracy)
        out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.5" {marks[point.kind]}/>')
        size = 6.6 * len(point.label)
        right = px + 9 + size < WIDTH - 2
        at = px + 9 if right else px - 9 - size
        line = py + 17  # under the staircase, which leaves a point to the right and upwards
        while any(abs(line - b) < 13 and at < c and a < at + size for a, b, c in labels):
            line += 13
        labels.append((at, line, at + size))
        out.append(f'<text x="{at:.1f}" y="{line:.1f}">{escape(point.label)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
