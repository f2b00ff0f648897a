"""Labels of points that do not lie on each other, on other points, or on a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.eval.report.svg import INK, MUTED, TEXT, any_glyph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Label", "overlap", "place_labels"]

Floats = NDArray[np.float64]

POINT = 7.0  # half the room that a point takes, in pixels
HEIGHT = 15.0
# Where a label may stand: direction of its anchor from the point, distance in pixels; the first is liked best.
PLACES = np.array(
    [
        (dx, dy, distance * (0.7 if dx and dy else 1))
        for distance in (9.0, 22.0, 40.0)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
    ]
)


@dataclass(frozen=True)
class Label:
    """``x``, ``y`` in the data's own units."""

    x: float
    y: float
    text: str
    bold: bool = False


def place_labels(axes: Axes, labels: Sequence[Label], line: Sequence[tuple[float, float]] = ()) -> Floats:
    """Write the labels next to their points; where a label had to move away, a thin line leads to its point.

    Args:
        axes: with its final limits.
        labels: the first ones get the better places.
        line: to keep off: corners between level and upright pieces, in the data's units.

    Returns:
        [labels, 4] where the labels are: left, bottom, right, top, in pixels.
    """
    to_pixels = axes.transData.transform
    points = to_pixels([(label.x, label.y) for label in labels])
    corners = to_pixels(line) if line else np.empty((0, 2))
    pieces = np.hstack([np.minimum(corners[:-1], corners[1:]) - 3, np.maximum(corners[:-1], corners[1:]) + 3])
    texts = [
        axes.text(0, 0, one.text, fontsize=TEXT, weight="bold" if one.bold else "normal", color=INK, parse_math=False)
        for one in labels
    ]
    with any_glyph():
        options = [_options(*point, text.get_window_extent().width) for point, text in zip(points, texts, strict=True)]
    dots = np.hstack([points - POINT, points + POINT])
    boxes = np.full((len(labels), 4), np.inf)  # nowhere yet
    for _ in range(3):  # each pass knows where the others ended up in the one before
        for row, own in enumerate(options):
            taken = np.vstack([np.delete(dots, row, axis=0), np.delete(boxes, row, axis=0), pieces])
            outside = (own[:, 2] - own[:, 0]) * HEIGHT - overlap(own, axes.bbox.extents[None])
            costs = overlap(own, taken) + 4 * outside + 6 * np.arange(len(own))
            boxes[row] = own[costs.argmin()]
    to_data = axes.transData.inverted().transform
    for text, (left, bottom, right, top), (x, y) in zip(texts, boxes, points, strict=True):
        near = np.clip((x, y), (left, bottom), (right, top))
        if np.abs(near - (x, y)).sum() > 2 * POINT:
            axes.plot(*to_data([(x, y), near]).T, color=MUTED, linewidth=0.7, zorder=2)
        text.set_ha("left" if left >= x else "right" if right <= x else "center")
        text.set_position(to_data((left if left >= x else right if right <= x else x, bottom + 4)))
    return boxes


def overlap(boxes: Floats, others: Floats) -> Floats:
    """[boxes] the area that each has in common with the others, [others, 4]."""
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    areas: Floats = np.maximum(sides, 0).prod(axis=2).sum(axis=1)
    return areas


def _options(x: float, y: float, width: float) -> Floats:
    """[places, 4] boxes around a point."""
    dx, dy, reach = PLACES.T
    left = x + dx * reach + (dx - 1) * width / 2
    bottom = y + dy * reach + np.where(dx == 0, (dy - 1) * HEIGHT / 2, -HEIGHT / 2)
    return np.stack([left, bottom, left + width, bottom + HEIGHT], axis=1)
