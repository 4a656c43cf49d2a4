"""The report is one safe, self-contained page that shows every figure of the record, finished or not."""

import html.parser
import importlib.util
import re
from pathlib import Path

import pytest

from spoutnik.run.report import render

spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)

VOID = {"meta", "br"}


@pytest.fixture(scope="module")
def events():
    return list(synthetic.events())


class Balanced(html.parser.HTMLParser):
    """Collects text, and fails on a tag that is closed out of order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_every_part_that_was_asked_for_is_there(events):
    text = " ".join(parsed(render(events)).words)
    for part in (
        "r1-zero: reward",
        "r1: tokens per response",
        "groups without signal",
        "cut off",
        "load at step 900",
        "experts with under a tenth of the mean",
        "countdown 19,900 0.4812 0.2734 0.213 0",
    ):
        assert part in text
    for part in (
        "early, step 1",
        "late, step 120",
        "Right sums",
        "Time by stage",
        "estimated (10 W per busy core)",
        "from outside",
        "not finite",
    ):
        assert part in text
    assert "r1-distill-smollm2 76.4% (from smollm2, 4.2%)" in text
    assert "72.5% to 79.9%" in text


def test_a_prediction_stands_beside_what_was_taken():
    foreseen = {"p10": 400.0, "p50": 500.0, "p90": 700.0}
    told = [{**event, "predicted": foreseen} if event["event"] == "stage_start" else event for event in synthetic.events()]
    words = parsed(render(told)).words
    assert "8 min 20 s (6 min 40 s to 12 min)" in words
    assert "1 h 32 min" in words, "the sum of eleven"


def test_votes_and_comparisons_of_models_are_shown():
    share = {"task": "t", "n": 100, "correct": 50, "accuracy": 0.5, "low": 0.4, "high": 0.6, "pass@4": 0.771, "cons@4": 0.629}
    models = [{"event": "eval", "stage": "eval", "time": 1.0, "model": name, **share} for name in ("first", "second")]
    gap = {"value": 0.123, "low": -0.011, "high": 0.257}
    pair = {"event": "pair", "stage": "eval", "time": 1.0, "task": "t", "a": "first", "b": "second", "difference": gap}
    pair |= {"better": 17, "worse": 4, "p": 0.0072, "p_holm": None}
    page = render([*models, pair])
    for shown in ("cons@4", "62.9%", "77.1%", "first, second", "+12.3", "-1.1 to +25.7", "<td>17</td><td>4</td><td>0.0072</td>"):
        assert shown in page
    assert "better on" not in render(models)


def test_the_page_fetches_and_runs_nothing(events):
    page = render(events)
    tags = parsed(page).tags
    assert {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "image", "use"} == set()
    assert not [attributes for _, attributes in tags if {"src", "href", "onload", "onclick"} & set(attributes)]
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_what_models_and_recipes_write_cannot_become_markup():
    evil = '"><script>alert(1)</script><svg onload=x>'
    events = [
        {"event": "run_start", "time": 1.0, "recipe": evil, "seed": 1, "machine": evil},
        {"event": "stage_start", "time": 1.0, "stage": evil, "kind": "rl", "inputs": {"from": evil + "2"}},
        {"event": "step", "time": 1.0, "stage": evil, "step": 1, "reward": 1.0},
        {"event": "step", "time": 1.0, "stage": evil, "step": 2, "reward": 2.0},
        {"event": "sample", "time": 1.0, "stage": evil, "when": evil, "prompt": evil, "text": evil, "correct": None},
        {"event": "warning", "time": 1.0, "stage": evil, "message": evil},
        {
            "event": "eval",
            "time": 1.0,
            "stage": evil,
            "model": evil,
            "task": evil,
            "n": 1,
            "correct": 1,
            "accuracy": 1.0,
            "low": 0.2,
            "high": 1.0,
        },
    ]
    tags = parsed(render(events)).tags
    assert not [tag for tag, attributes in tags if tag == "script" or "onload" in attributes]


@pytest.mark.parametrize("share", [0.0, 0.002, 0.1, 0.4, 0.7, 0.99])
def test_a_run_cut_anywhere_still_gets_a_report(events, share):
    page = render(events[: int(len(events) * share)])
    assert parsed(page).tags
    if 0 < share < 0.99:
        assert "Nothing was evaluated yet" in page


def test_a_loss_that_was_not_a_number_leaves_a_gap_not_a_crash(events):
    broken = [event | {"loss": "nan"} if event["event"] == "step" and event["step"] % 7 == 0 else event for event in events]
    assert "nan" not in re.sub(r"<style>.*?</style>", "", render(broken))


def test_nothing_is_drawn_outside_its_chart(events):
    for drawing in re.findall(r"<svg.*?</svg>", render(events), re.S):
        width, height = (float(number) for number in re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing).groups())
        for attribute, limit in (
            ("x", width),
            ("x1", width),
            ("x2", width),
            ("cx", width),
            ("y", height),
            ("y1", height),
            ("y2", height),
            ("cy", height),
        ):
            values = [float(value) for value in re.findall(rf' {attribute}="(-?[\d.]+)"', drawing)]
            assert all(-0.1 <= value <= limit + 0.1 for value in values), (attribute, min(values), max(values), width, height)
        for x, anchor, label in re.findall(r'<text class="\w+" x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">(.*?)</text>', drawing):
            long = 6.0 * len(label)
            start = float(x) - {"start": 0, "middle": long / 2, "end": long}[anchor]
            assert start >= -8, label
            assert start + long <= width + 14, label


def test_teachers_are_billed_and_the_words_that_accepted_their_terms_are_quoted():
    asked = {"event": "teacher", "stage": "samples", "time": 1.0, "teacher": "big", "requests": 1600, "prompt_tokens": 1500, "cost": 0.5}
    asked |= {"paid": 0.25, "possibly_paid": 0.125, "currency": "USD", "terms": "forbidden", "accepted": "I <b>alone</b> answer for it."}
    stopped, finished = {**asked, "answers": 0, "completion_tokens": 0}, {**asked, "answers": 1599, "completion_tokens": 2_000_000}
    page = render([{"event": "stage_start", "stage": "samples", "kind": "sample", "time": 0.0}, stopped, finished])
    for part in (
        "1,599",
        "1.5 k",
        "2 M",
        "0.5000 USD",
        "0.2500 USD",
        "0.1250 USD",
        "forbidden",
        "I &lt;b&gt;alone&lt;/b&gt; answer for it.",
    ):
        assert part in page
    assert "Teachers</h2>" not in render([])
