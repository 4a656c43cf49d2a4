"""What a plan is shown as: text, reasons, comparisons, pages, JSON; in English and in French, with no word missing."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from spoutnik.errors import UserError
from spoutnik.plan.answer import answer, render, render_comparison, why
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import chip
from spoutnik.plan.compare import compare
from spoutnik.plan.distillation import MODES, Lesson, plan_distillation
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.models import open_model
from spoutnik.plan.page import comparison_page, page
from spoutnik.plan.programme import plan_programme
from spoutnik.plan.programme_file import read_programme
from spoutnik.plan.reinforcement import Campaign, plan_reinforcement
from spoutnik.plan.result import EXACT, TOTALS, reasons
from spoutnik.plan.schedule import Durations, generate, simulate
from spoutnik.plan.serving import Service, Throughput, plan_serving
from spoutnik.plan.speech import language_of, speech
from spoutnik.plan.training import plan_training
from spoutnik.plan.uncertain import SAMPLES, Uncertain, samples_of, triangular

LANGUAGES = ("en", "fr")
PHRASE = re.compile(r"\b(?!x )[a-zà-ÿ_']+ (?!x )[a-zà-ÿ_']+")
"""Two words beside each other: no arithmetic."""


def make_plans():
    h800, small, rent = chip("h800-sxm"), open_model("qwen2.5-7b"), Rent()
    service = Service(1e9, 1e9)
    return {
        "train": plan_training(open_model("llama-3.1-8b"), 15e12, h800, 256, title="Llama"),
        "rl": plan_reinforcement(small, "Qwen", h800, 8, Campaign(100, 32, 16, 1000, 4000), rent),
        **{mode: plan_distillation(open_model("qwen2.5-72b"), small, mode, h800, 8, Lesson(mode, 1e5, 1000), rent) for mode in MODES},
        "serve": plan_serving(open_model("deepseek-v3"), "V3", h800, service, rent),
        "given": plan_serving(open_model("deepseek-v3"), "V3", h800, service, Rent(2.0), Throughput(7e4, 1e4, "somebody")),
        "programme": plan_programme(read_programme("deepseek-v3-r1")),
    }


PLANS = make_plans()
EVERY = [(name, language) for name in PLANS for language in LANGUAGES]


class Page(HTMLParser):
    """Checks that tags are closed in order, and remembers attributes that could fetch something."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids = [], [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.ids.add(values.get("id"))
        assert tag not in ("script", "link", "img", "iframe")
        if tag not in ("meta", "br") and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


@pytest.mark.parametrize(("name", "language"), EVERY)
def test_the_first_line_is_the_answer_and_every_figure_has_a_label(name, language):
    plan, words = PLANS[name], speech(language)
    text = render(plan, words)
    assert text.splitlines()[0] == answer(plan, words)
    assert plan.title in text.splitlines()[0]
    for figure in plan.figures:
        assert words.has(f"figure.{figure}"), f"{figure} has no label in {language}"
    assert not re.search(r"\b(nan|inf)\b|[{}]", text)


@pytest.mark.parametrize("name", PLANS)
def test_formulas_and_notes_that_hold_words_are_translated(name):
    words = speech("fr")
    for figure in PLANS[name].all_figures().values():
        for text in (figure.formula, figure.note):
            if PHRASE.search(str(text)) and not re.search(r"\d", str(text)):
                assert words.phrase(text) != str(text), f"{figure.name}: {text!r} is not in words_fr.toml"


@pytest.mark.parametrize("name", PLANS)
def test_sources_in_words_are_translated_and_citations_stay(name):
    """A name or a number makes a citation of a source; a command is one, too."""
    words = speech("fr")
    sources = {one.source for figure in PLANS[name].all_figures().values() for one in figure.inputs if isinstance(one, Input)}
    for text in sources:
        if PHRASE.search(str(text)) and not re.search(r"\d|[A-Z]|^spoutnik ", str(text)):
            assert words.phrase(text) != str(text), f"{text} is not in words_fr.toml"


@pytest.mark.parametrize(("name", "language"), EVERY)
def test_every_figure_can_be_asked_why(name, language):
    plan, words = PLANS[name], speech(language)
    for key, figure in plan.all_figures().items():
        told = why(plan.figure(key), words)
        assert told.startswith(figure.name)
        for one in figure.inputs:
            assert one.name in told
    json.dumps(reasons(plan.figures["cost_usd"]))


def test_an_unknown_figure_lists_those_that_there_are():
    with pytest.raises(UserError, match=r"no figure 'mfo'.*gpu_hours.*kw|no figure 'mfo'.*cost_usd"):
        PLANS["train"].figure("mfo")


def test_a_figure_within_a_line_is_found_by_the_lines_number_and_without():
    plan = PLANS["programme"]
    assert plan.figure("4.cost_usd").value == 202_752
    assert plan.figure("prefill_nodes") is plan.figure("8.prefill_nodes")


@pytest.mark.parametrize("name", PLANS)
def test_json_has_the_promised_keys(name):
    told = json.loads(json.dumps(PLANS[name].to_json()))
    assert {*EXACT, *TOTALS, "memory_gib_per_device"} <= set(told)
    for key in TOTALS:
        assert set(told[key]) == {"p10", "p50", "p90"}, key
        assert told[key]["p10"] <= told[key]["p50"] <= told[key]["p90"]
    if name != "programme":
        assert told["params_total"] > 1e9
    if name not in ("programme", "given"):
        assert told["memory_gib_per_device"] > 0


@pytest.mark.parametrize(("name", "language"), EVERY)
def test_a_page_is_whole_fetches_nothing_and_its_links_lead_somewhere(name, language):
    timeline = simulate(generate("dualpipe", 4, 8), Durations(1, 2, 1, 2.5))
    text = page(PLANS[name], speech(language), 80e9, timeline)
    parsed = Page(text)
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert f'<html lang="{language}">' in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") >= 1 + bool(PLANS[name].memory) + bool(PLANS[name].lines)


def test_a_page_escapes_what_the_user_wrote():
    plan = plan_serving(open_model("qwen2.5-7b"), "<b>&", chip("h100-sxm"), Service(1e9, 1e9), Rent(2.0))
    assert "<b>&<" not in page(plan, speech("en"))
    assert "&lt;b&gt;&amp;" in page(plan, speech("en"))


def test_a_comparison_takes_differences_draw_by_draw():
    """Two plans that differ by a constant factor differ by less than their ranges would say."""
    model, service = open_model("deepseek-v3"), Service(1e11, 1e11)
    first, second = (plan_serving(model, "x", chip("h800-sxm"), service, Rent(price)) for price in (2.0, 2.2))
    comparison = compare(first, second, "price=2.2")
    ends = comparison.differences["cost_usd"].value.range()
    own = first.figures["cost_usd"].value.range()
    assert ends.p90 - ends.p10 == pytest.approx(0.1 * (own.p90 - own.p10))
    assert comparison.cheaper == 0
    assert comparison.second.title == "x (price=2.2)"
    assert not comparison.differs("gpu_hours")
    assert comparison.differs("cost_usd")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_comparison_says_which_is_cheaper(language):
    words = speech(language)
    comparison = compare(PLANS["serve"], PLANS["given"], "given")
    first = render_comparison(comparison, words).splitlines()[0]
    assert "V3" in first
    Page(comparison_page(comparison, words))
    json.dumps(comparison.to_json())
    same = render_comparison(compare(PLANS["given"], PLANS["given"]), words).splitlines()[0]
    assert same == words("answer.compare_same", first="V3", second="V3")


@pytest.mark.parametrize(("value", "unit", "english", "french"), [
    (2.788e6, "GPU-hours", "2.788 M GPU-hours", "2,788\u202fM\u202fd\u2019heures-GPU"),
    (5.576e6, "USD", "$5.576 M", "5,576\u202fM\u202f$"),
    (87_072.0, "USD", "$87,072", "87\u202f072\u202f$"),
    (-87_072.0, "USD", "-$87,072", "-87\u202f072\u202f$"),
    (14.8e12, "tokens", "14.8 T tokens", "14\u202f800\u202fMd\u202fde jetons"),
    (999_999_999.0, "", "1 B", "1\u202fMd"),
    (250.4e9, "FLOP/token", "250.4 GFLOP a token", "250,4\u202fGFLOP par jeton"),
    (70_272.0, "bytes/token", "70.27 kB a token", "70,27\u202fko par jeton"),
    (0.3894, "share", "38.9%", "38,9\u202f%"),
    (1.0, "days", "1 day", "1\u202fjour"),
    (1.5, "days", "1.5 days", "1,5\u202fjour"),
    (0.0, "USD", "$0", "0\u202f$"),
    (3.2e6, "kWh", "3.2 GWh", "3,2\u202fGWh"),
    (3.7067e24, "FLOP", "3.707e24 FLOP", "3,707e24\u202fFLOP"),
    (999.96e9, "FLOP/s", "1 TFLOP/s", "1\u202fTFLOP/s"),
])  # fmt: skip
def test_numbers_are_written_as_each_language_writes_them(value, unit, english, french):
    assert speech("en").quantity(value, unit) == english
    assert speech("fr").quantity(value, unit) == french


def test_what_is_uncertain_is_written_with_three_digits_and_its_interval():
    value = triangular(1.234e6, 2.345e6, 3.456e6, name="test")
    assert re.fullmatch(r"\$2\.3\d M", speech("en").quantity(value, "USD"))
    assert re.fullmatch(r"\$1\.\d\d M to \$2\.9\d M|\$1\.\d+ M to \$\d\.\d+ M", speech("en").interval(value, "USD"))
    assert speech("fr").interval(value, "USD").startswith("de 1,")
    assert speech("en").quantity(999.7e9, "", exact=False) == "1 T"
    assert speech("en").interval(Uncertain(value.samples * 0 + 1.0), "USD") == ""


def test_french_text_has_french_spaces():
    """No plain space before the double punctuation, per cent and dollar signs, or within quotation marks."""
    for key, text in speech("fr")._table.items():
        assert not re.search(r" [;:!?%$»]|« ", text), key
    for name in PLANS:
        first = answer(PLANS[name], speech("fr"))
        assert not re.search(r"\d [%$]|\d,\d{3},|\d\.\d", first), first


@pytest.mark.parametrize(("asked", "environment", "language"), [
    ("fr", {"LANG": "en_GB.UTF-8"}, "fr"), (None, {"LANG": "fr_FR.UTF-8"}, "fr"), (None, {"LC_ALL": "C", "LANG": "fr_FR"}, "en"),
    (None, {}, "en"), (None, {"LC_MESSAGES": "fr_CA", "LANG": "en_US"}, "fr"), (None, {"LANG": "de_DE"}, "en"),
])  # fmt: skip
def test_language_is_what_was_asked_for_else_the_environments(asked, environment, language):
    assert language_of(asked, environment) == language


def test_a_figure_that_two_others_share_is_told_once():
    shared = Figure("shared", 2.0, "", "a", (Input("a", 2.0),))
    top = Figure(
        "top", 4.0, "", "left + right", (Figure("left", 2.0, "", "shared", (shared,)), Figure("right", 2.0, "", "shared", (shared,)))
    )
    assert why(top, speech("en")).count("a = 2 [") == 1


SCALES = {"TFLOP/s": 1e12, "TB/s": 1e12, "GB/s": 1e9}


def worked_out(figure):
    """What a figure's formula gives with the inputs that are shown, draw by draw; None for a formula in words."""
    if PHRASE.search(figure.formula) or re.fullmatch(r"(triangular|lognormal)\(.*|\w+", figure.formula):
        return None
    values = {one.name: samples_of(one.value) * SCALES.get(one.unit, 1.0) for one in figure.inputs if not isinstance(one.value, str)}
    if whole := re.fullmatch(r"sum\((\w+)\)", figure.formula):
        return sum(value for name, value in values.items() if name.partition(".")[2] == whole[1])
    text, known = figure.formula.replace("^", "**"), {"max": np.maximum}
    for place, name in enumerate(sorted(values, key=len, reverse=True)):
        text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", f"v{place}", text)
        known[f"v{place}"] = values[name]
    return eval(text, {"__builtins__": {}}, known)


@pytest.mark.parametrize("name", PLANS)
def test_a_formula_gives_the_figure_with_the_inputs_that_are_shown(name):
    for key, figure in PLANS[name].all_figures().items():
        found = worked_out(figure)
        if found is not None:
            np.testing.assert_allclose(
                np.broadcast_to(found, SAMPLES), np.broadcast_to(samples_of(figure.value), SAMPLES), 1e-9, err_msg=key
            )


def test_what_a_model_of_the_planner_gives_is_not_called_exact():
    rows = {line.split("  ")[0]: line for line in render(PLANS["train"], speech("en")).splitlines()}
    assert rows["memory of a device"].endswith("no range")
    assert rows["parameters"].endswith("exact")


def test_middles_that_do_not_add_up_are_explained():
    note = speech("en")("head.draws")
    assert note in render(PLANS["rl"], speech("en"))
    assert note in why(PLANS["train"].figures["cost_usd"], speech("en"))
    assert note not in why(PLANS["train"].figures["params_total"], speech("en"))


def test_a_page_of_what_costs_nothing_is_whole():
    free = plan_training(open_model("llama-3.1-8b"), 1e12, chip("h800-sxm"), 64, rent=Rent(0.0))
    Page(page(free, speech("en"), 80e9))
