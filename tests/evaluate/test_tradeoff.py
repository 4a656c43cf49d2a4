"""Cost against quality: published figures carry sources and stay apart from measured ones, and a plot can be read."""

import json
import re
import xml.etree.ElementTree as ElementTree
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.evaluate.figures import Estimate, Evaluation, Model, Price, Result, Task
from spoutnik.evaluate.labels import Box, place
from spoutnik.evaluate.published import benchmarks, read_published
from spoutnik.evaluate.statistics import wilson
from spoutnik.evaluate.tradeoff import Point, frontier, measured_points, published_points, tasks_of
from spoutnik.evaluate.tradeoff_plot import Plot, draw, page

MODELS = read_published()


def result(model, correct, cost, task="countdown", currency="USD"):
    low, high = wilson(correct, 100)
    share = Estimate(value=correct / 100, low=low, high=high)
    unknown = ("pass_at_k", "cons_at_k", "faithful_steps", "supported", "tokens_per_solved", "wall_s")
    empty = dict.fromkeys((*unknown, "energy_kwh", "energy_kwh_per_solved", "energy_source"))
    return Result(
        model=model, task=task, date="2026-11-25", n=100, k=1, correct=correct, pass_at_1=share, pass_at={1: share}, format=1, truncated=0,
        refused=0, faulted=0, failed=0, tokens_per_answer=50, cost=cost, cost_per_answer=cost and cost / 100,
        cost_per_solved=cost / correct if cost and correct else None, cost_basis=cost and "machine", currency=cost and currency,
        usage_unknown=0, **empty,
    )  # fmt: skip


def evaluation(*results, price=None):
    names = list(dict.fromkeys(one.model for one in results))
    return Evaluation(
        date="2026-11-25T00:00:00Z", spoutnik="0", seed=0, temperature=0, max_new_tokens=9, dtype="float32",
        models=[Model(name=name, kind="remote" if price else "local", id=name, price=price) for name in names],
        tasks=[Task(name="countdown", split="held-out", problems=100)], results=list(results), pairs=[],
    )  # fmt: skip


def point(cost, score, origin="measured", model="m"):
    return Point(model, "2026-11-25", cost, score, score, score, origin, "", "")


def test_every_published_figure_has_a_date_and_a_source():
    assert {"DeepSeek-V3", "DeepSeek-R1", "o1 (1217)", "Llama 3.1 405B", "Mistral Large 2"} <= {model.name for model in MODELS}
    assert len({model.name for model in MODELS}) == len(MODELS)
    for model in MODELS:
        assert date(2024, 1, 1) < model.released < date(2027, 1, 1)
        for source in (model.released_source, model.price.source, *(score.source for score in model.scores)):
            assert source.startswith("https://")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"released": "soon"}, "released"),
        ({"price": {"prompt": 1.0, "completion": 2.0, "currency": "USD", "by": "maker"}}, r"price\.source"),
        ({"scores": [{"benchmark": "MMLU", "value": 188.0, "by": "x", "source": "https://x"}]}, "value"),
        ({"extra": 1}, "extra"),
        ({"scores": []}, "scores"),
    ],
)
def test_published_figures_of_another_form_are_refused_with_their_place(tmp_path, change, expected):
    fields = {"name": "m", "maker": "x", "released": date(2025, 1, 1), "released_source": "https://x",
              "scores": [{"benchmark": "MMLU", "value": 88.0, "by": "x", "source": "https://x"}], **change}  # fmt: skip

    def toml(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(toml, value)) + "]"
        return value.isoformat() if isinstance(value, date) else json.dumps(value)

    file = tmp_path / "own.toml"
    file.write_text("[[model]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in fields.items()), encoding="utf-8")
    with pytest.raises(UserError, match=expected):
        read_published(file)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=20))
def test_the_frontier_is_what_no_cheaper_or_equal_point_reaches(pairs):
    points = [point(cost, score / 10, model=str(index)) for index, (cost, score) in enumerate(pairs)]
    best = frontier(points)
    assert [each.cost for each in best] == sorted({each.cost for each in best})
    for one in points:
        beaten = any(
            (other.cost <= one.cost and other.score > one.score) or (other.cost < one.cost and other.score == one.score) for other in points
        )
        assert beaten == ((one.cost, one.score) not in {(each.cost, each.score) for each in best})


def test_measured_costs_are_those_of_the_axis_and_unknown_ones_are_named():
    results = evaluation(
        result("paid", 50, 2.0), result("free", 50, None), result("hopeless", 0, 1.0), result("other", 9, 1.0, task="words")
    )
    assert tasks_of([results]) == ["countdown", "words"]
    points, left_out = measured_points([results], "countdown", "cost", "USD", {})
    assert [(one.model, one.cost, one.score) for one in points] == [("paid", 2.0 / 50, 0.5)]
    assert {one.model: one.reason for one in left_out} == {
        "free": "its cost is not known; evaluate it with --price",
        "hopeless": "it solved nothing",
    }
    (paid, hopeless), _ = measured_points([results], "countdown", "price", "USD", {})
    assert paid.cost == pytest.approx(2.0 / (50 * 100) * 1e6)
    assert hopeless.score == 0


def test_a_list_price_is_taken_as_it_is_and_currencies_meet_only_by_a_rate():
    listed = evaluation(result("far", 50, 2.0), price=Price(prompt=1, completion=4, cached=None, currency="EUR"))
    assert measured_points([listed], "countdown", "price", "USD", {})[1][0].reason == "its cost is in EUR; give --rate EUR=... in USD"
    assert measured_points([listed], "countdown", "price", "USD", {"EUR": 1.5})[0][0].cost == 6


def test_published_points_say_who_published_them():
    points, left_out = published_points(MODELS, "math-500", "USD", {})
    by_name = {one.model: one for one in points}
    assert by_name["DeepSeek-R1"].origin == "maker"
    assert by_name["o1 (1217)"].origin == "other"
    assert by_name["o1 (1217)"].by == "published by DeepSeek"
    assert by_name["DeepSeek-V3"].date == "2024-12-26"
    assert [one.model for one in left_out] == ["Mistral Large 2"]
    with pytest.raises(UserError, match="MATH-500"):
        published_points(MODELS, "MATH-501", "USD", {})
    assert published_points(MODELS, "MMLU", "EUR", {})[0] == []


def texts_of(drawing):
    root = ElementTree.fromstring(drawing)
    return [element.text for element in root.iter() if element.tag.endswith("text")]


@pytest.mark.parametrize("benchmark", benchmarks(MODELS))
def test_a_plot_names_every_model_with_its_date_and_marks_where_figures_are_from(benchmark):
    published, _ = published_points(MODELS, benchmark, "USD", {})
    measured = [point(0.5, 0.8, model="ours <1>"), point(3.0, 0.9, model="larger")]
    drawing = draw([*measured, *published], "title", "price", "USD")
    texts = texts_of(drawing)
    assert {one.model for one in (*published, *measured)} <= set(texts)
    assert {one.date for one in published} <= set(texts)
    assert "measured here, with the 95% interval" in texts
    assert any(text.startswith("Measured and published scores come from different tests") for text in texts)
    assert 'class="line measured"' in drawing
    assert 'class="line published"' in drawing
    assert not any(text.startswith("Measured and") for text in texts_of(draw(published, "title", "price", "USD")))


SPOTS = st.lists(st.tuples(st.floats(80, 860), st.floats(60, 440)), max_size=9, unique=True)


@settings(max_examples=25)
@given(SPOTS)
def test_labels_cover_neither_each_other_nor_points_nor_the_edge(spots):
    """Up to nine points, wherever they are."""
    frame, sizes = Box(60, 40, 880, 460), [(100.0, 28.0)] * len(spots)
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    boxes = [label.box for label in place(spots, sizes, taken, [], frame)]
    for index, box in enumerate(boxes):
        assert box.outside(frame) == pytest.approx(0, abs=1e-6)
        assert all(box.overlap(other) == 0 for other in boxes[index + 1 :])
        assert all(box.overlap(other) == 0 for other in taken)


def test_the_page_fetches_nothing_and_names_sources_and_what_has_no_point():
    points, left_out = published_points(MODELS, "MATH-500", "USD", {})
    text = page([Plot(points, left_out, "MATH-500 <b>", "price", "USD")])
    assert "https://api-docs.deepseek.com/quick_start/pricing-details-usd" in text
    assert "Mistral Large 2: no score was published" in text
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert "<b>" not in text
    assert not re.search(r"(src|href)=", text)


def test_one_point_alone_can_be_drawn():
    assert "m" in texts_of(draw([point(1.0, 1.0, model="some/folder/m")], "t", "cost", "EUR"))
    assert "m" in texts_of(draw([point(1e-7, 0.0)], "t", "cost", "EUR"))
