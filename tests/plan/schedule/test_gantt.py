"""Drawings hold every task and lie on no neighbour."""

import xml.etree.ElementTree as ElementTree

import pytest

from spoutnik.plan.schedule import SCHEDULES, Durations, gantt, generate, simulate


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_svg_is_well_formed_and_has_a_box_for_every_task(name):
    timeline = simulate(generate(name, 4, 8), Durations(1, 2, 1, 2.5))
    root = ElementTree.fromstring(gantt.svg(timeline))
    boxes = [box for box in root.iter("{http://www.w3.org/2000/svg}rect") if box.get("stroke")]
    assert len(boxes) == sum(1 + (cell.task.kind == "FB") for row in timeline.cells for cell in row)
    assert all(float(box.get("x")) + float(box.get("width")) <= 1200 for box in boxes)


def test_the_text_of_1f1b_is_the_picture_of_its_paper():
    timeline = simulate(generate("1f1b", 2, 3), Durations(1, 2, 1))
    assert gantt.text(timeline, 1).splitlines() == [
        "  0 F0F1....B0--F2B1--..B2--",
        "  1 ..F0B0--F1B1--F2B2--....",
    ]
