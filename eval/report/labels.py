"""Labels of points that do not lie on each other, on other points, or on a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixlm_rerank.eval.report.plot import TEXT
from mixlm_rerank.eval.report.svg import INK, MUTED, any_glyph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Box", "Label", "place_labels"]

POINT = 7.0  # half the room that a point takes, in pixels
# Where a label may stand: direction of its anchor from the point, distance in pixels; the first is liked best.
PLACES = [
    (dx, dy, distance)
    for distance in (9.0, 22.0, 40.0)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
]


@dataclass(frozen=True)
class Label:
    """``x``, ``y`` in the data's own units."""

    x: float
    y: float
    text: str
    bold: bool = False


@dataclass(frozen=True)
class Box:
    """In pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Area in common."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def place_labels(axes: Axes, labels: Sequence[Label], line: Sequence[tuple[float, float]] = ()) -> list[Box]:
    """Write the labels next to their points; where a label had to move away, a thin line leads to its point.

    Args:
        axes: with its final limits.
        labels: the first ones get the better places.
        line: corners of a polyline to keep off, in the data's units.

    Returns:
        Where the labels are.
    """
    points = [tuple(map(float, axes.transData.transform((label.x, label.y)))) for label in labels]
    obstacles = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points] + _along(axes, line)
    frame = axes.get_window_extent()
    inside = Box(frame.x0, frame.y0, frame.x1, frame.y1)
    sizes = [_size(axes, label) for label in labels]
    boxes: list[Box | None] = [None] * len(labels)
    for _ in range(3):  # each pass knows where the others ended up in the one before
        for row, ((x, y), size) in enumerate(zip(points, sizes, strict=True)):
            taken = obstacles[:row] + obstacles[row + 1 :] + [box for i, box in enumerate(boxes) if box and i != row]
            options = [_box(x, y, size, place) for place in PLACES]
            costs = [
                sum(box.overlap(other) for other in taken) + 4 * (box.area - box.overlap(inside)) + 6 * rank
                for rank, box in enumerate(options)
            ]
            boxes[row] = options[costs.index(min(costs))]
    placed = [box for box in boxes if box is not None]
    for label, box, point in zip(labels, placed, points, strict=True):
        _write(axes, label, box, point)
    return placed


def _along(axes: Axes, line: Sequence[tuple[float, float]], step: float = 6.0) -> list[Box]:
    """Small boxes that cover the line."""
    corners = [tuple(map(float, axes.transData.transform(corner))) for corner in line]
    boxes = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
        parts = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / step))
        for part in range(parts + 1):
            x, y = x0 + (x1 - x0) * part / parts, y0 + (y1 - y0) * part / parts
            boxes.append(Box(x - 3, y - 3, x + 3, y + 3))
    return boxes


def _size(axes: Axes, label: Label) -> tuple[float, float]:
    with any_glyph():
        text = axes.text(0, 0, label.text, fontsize=TEXT, weight="bold" if label.bold else "normal", parse_math=False)
        extent = text.get_window_extent()
    text.remove()
    return extent.width, 15.0


def _box(x: float, y: float, size: tuple[float, float], place: tuple[int, int, float]) -> Box:
    (width, height), (dx, dy, distance) = size, place
    reach = distance * (0.7 if dx and dy else 1)
    left = x + dx * reach + (-width / 2, 0, -width)[dx]
    bottom = y + dy * reach + (-height / 2, 0, -height)[dy]
    if dx and dy:
        bottom -= dy * height / 2
    return Box(left, bottom, left + width, bottom + height)


def _write(axes: Axes, label: Label, box: Box, point: tuple[float, ...]) -> None:
    x, y = point
    near_x, near_y = min(max(x, box.left), box.right), min(max(y, box.bottom), box.top)
    to_data = axes.transData.inverted()
    if abs(near_x - x) + abs(near_y - y) > 2 * POINT:
        ends = to_data.transform([(x, y), (near_x, near_y)])
        axes.plot(ends[:, 0], ends[:, 1], color=MUTED, linewidth=0.7, zorder=2)
    side = "left" if box.left >= x else "right" if box.right <= x else "center"
    at = {"left": box.left, "right": box.right, "center": (box.left + box.right) / 2}[side]
    text_x, text_y = to_data.transform((at, box.bottom + 4))
    weight = "bold" if label.bold else "normal"
    axes.text(text_x, text_y, label.text, fontsize=TEXT, weight=weight, ha=side, color=INK, parse_math=False)
