"""Where the labels of a plot's points go, so that none covers another, a point or the edge of the plot."""

from collections.abc import Sequence
from dataclasses import dataclass

DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
DISTANCES = (9, 18, 30, 45, 65, 90, 120, 160)
COVER_COST, LINE_COST, CROSS_COST = 1e4, 0.3, 15.0
"""What covering something, a pixel of a line, and crossing a label cost beside a pixel of distance."""


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, frame: "Box") -> float:
        """Area beyond the frame."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(frame)


@dataclass(frozen=True)
class Label:
    """`near` is whether it stands beside its point, so that no line needs to lead to it."""

    box: Box
    near: bool


def place(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], taken: Sequence[Box], lines: Sequence[Box], frame: Box
) -> list[Label]:
    """A label of (width, height) for each point. `taken` is what labels must not cover, `lines` what they should rather not.

    Greedy from left to right, so the same points always get the same places: each label gets the place that disturbs least.
    """
    placed: dict[int, Label] = {}
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        labels = [label.box for label in placed.values()]
        places = [(distance, _beside(points[index], sizes[index], way, distance)) for distance in DISTANCES for way in DIRECTIONS]

        def disturbs(place: tuple[float, Box], point: tuple[float, float] = points[index], labels: list[Box] = labels) -> float:
            distance, box = place
            covered = sum(box.overlap(other) for other in (*taken, *labels)) + box.outside(frame)
            crossed = sum(_crossed(point, box, other) for other in labels) if distance > DISTANCES[1] else 0.0
            soft = sum(box.overlap(other) for other in lines) * LINE_COST + crossed * CROSS_COST
            return (covered > 1e-6) * COVER_COST + covered + soft + distance

        distance, box = min(places, key=disturbs)
        placed[index] = Label(box, distance <= DISTANCES[1])
    return [placed[index] for index in range(len(points))]


def _beside(point: tuple[float, float], size: tuple[float, float], direction: tuple[int, int], distance: float) -> Box:
    (x, y), (width, height), (across, down) = point, size, direction
    left = x + across * distance - (0 if across > 0 else width if across < 0 else width / 2)
    top = y + down * distance - (0 if down > 0 else height if down < 0 else height / 2)
    return Box(left, top, left + width, top + height)


def leads_to(point: tuple[float, float], box: Box) -> tuple[float, float]:
    """The end of a line from a point to its label: the nearest place of the label's edge."""
    return min(max(point[0], box.left), box.right), min(max(point[1], box.top), box.bottom)


def _crossed(point: tuple[float, float], box: Box, other: Box) -> float:
    """How many of twenty places on the line from a point to its label lie in another one."""
    (x, y), (end_x, end_y) = point, leads_to(point, box)
    steps = [(x + (end_x - x) * step / 20, y + (end_y - y) * step / 20) for step in range(1, 20)]
    return float(sum(other.left < at < other.right and other.top < down < other.bottom for at, down in steps))
