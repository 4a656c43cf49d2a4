"""spoutnik plan model, chips and rules, as a user runs them."""

import json

import pytest
from typer.testing import CliRunner

from spoutnik.cli.main import app
from spoutnik.errors import UserError


def run(*arguments):
    result = CliRunner().invoke(app, ["plan", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_first_line_answers_what_a_model_is():
    assert run("model", "deepseek-v3").splitlines()[0] == (
        "DeepSeek-V3: 671 B parameters, 37.55 B used for each token; 250.5 GFLOP a token to train, over sequences of 4,096 tokens."
    )
    assert "paramètres" in run("model", "smollm2", "--lang", "fr")


def test_sizes_as_flags_make_a_model_and_json_has_every_figure():
    sizes = ["--hidden-size", "64", "--num-hidden-layers", "2", "--num-attention-heads", "4", "--intermediate-size", "128"]
    found = json.loads(run("model", *sizes, "--vocab-size", "100", "--json"))
    assert found["params_total"] == sum(part["parameters"] for part in found["components"].values())
    assert found["flops_per_token"] == 3 * sum(part["forward_flops"] for part in found["components"].values())
    with pytest.raises(UserError, match="--vocab-size"):
        run("model", *sizes)


def test_why_goes_down_to_the_components_and_the_source():
    assert "forward.routed_experts" in run("model", "deepseek-v3", "--why", "flops_per_token")
    assert "disclosed: config.json of deepseek-ai/DeepSeek-V3" in run("model", "deepseek-v3", "--why", "cache_bytes_per_token")
    with pytest.raises(UserError, match="params_total"):
        run("model", "deepseek-v3", "--why", "params_totals")


def test_chips_and_their_classes_are_those_of_the_day():
    before, after = (json.loads(run("chips", "--json", "--date", day)) for day in ("2025-06-01", "2026-06-01"))
    assert before["h200-sxm"]["export"]["review"] == "denial"
    assert after["h200-sxm"]["export"]["review"] == "case_by_case"
    assert "not legal advice" in run("chips").splitlines()[0]


def test_rules_of_a_chip_tell_its_history_and_of_compute_its_duties():
    assert "April 2025 notice" in run("rules", "h20", "--date", "2025-06-01")
    assert "tpp / die_mm2" in run("rules", "h20", "--why", "performance_density").replace("÷", "/")
    found = json.loads(run("rules", "deepseek-v3", "--tokens", "14.8T", "--open", "--json"))
    assert found["flop"] == pytest.approx(3.86e24, rel=1e-2)
    assert [duty["falls_away"] for duty in found["duties"]] == [True, True, False, False]
    assert "usage général" in run("rules", "3e24", "--lang", "fr")


def test_laws_turn_money_into_sizes_and_say_what_another_size_costs():
    found = json.loads(run("laws", "--budget", "5.576e6usd", "--chip", "h800-sxm", "--size", "37B", "--json"))
    assert found["laws"]["chinchilla"]["size"]["p10"] < 178e9 < found["laws"]["chinchilla"]["size"]["p90"]
    assert found["at_size"]["excess"] > 1
    assert "share" in run("laws", "--budget", "1e24flop", "--why", "chinchilla.size")
    assert "jetons" in run("laws", "--budget", "1e24flop", "--lang", "fr")


def test_a_laboratory_with_only_h20_trains_slowly_and_answers_one_reader_faster():
    first = run("h20").splitlines()[0]
    assert "NVIDIA H20 instead of NVIDIA H800 SXM" in first
    assert "1.18 times as fast" in first
    assert json.loads(run("h20", "--json", "--devices", "512"))["needed"]["p50"] > 512


def test_the_press_numbers_lie_on_the_curve_and_say_what_they_are(tmp_path):
    page = tmp_path / "trend.html"
    shown = run("trend", "--html", str(page), "--cost", "80M")
    assert "3.1 times a year, between the trends of 3 and 4" in shown.splitlines()[0]
    assert "[claimed] against DeepSeek-V3 $5.576 M [disclosed]" in shown
    assert "<svg" in page.read_text(encoding="utf-8")
    assert json.loads(run("trend", "--json"))["comparisons"][0]["yearly"]["p50"] == pytest.approx(3.14, abs=0.05)
    assert "ratio^(1 / years)" in run("trend", "--why", "gpt-4.yearly")
    assert "par an" in run("trend", "--lang", "fr")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rules", "h21"], "neither a chip"),
        (["laws", "--budget", "5"], "1e24flop"),
        (["laws", "--budget", "5usd"], "--chip"),
        (["laws", "--budget", "-5e20flop"], "positive"),
        (["laws", "--budget", "1e20flop", "--size", "0"], "--size"),
        (["h20", "--devices", "0"], "--devices"),
        (["trend", "--cost", "80M", "--from", "summer"], "2024-12"),
        (["trend", "--cost", "-1"], "--cost"),
        (["rules", "deepseek-v3", "--tokens", "many"], "--tokens"),
        (["rules", "0"], "positive"),
        (["chips", "--date", "tomorrow"], "2026-01-15"),
        (["rules", "3e24", "--modifies", "some"], "--modifies"),
        (["model", "deepseek-v3", "--lang", "de"], "speaks"),
        (["laws", "--budget", "1e24flop", "--price", "2"], "leave them out"),
        (["rules", "h20", "--tokens", "5T"], "h20 is a chip"),
        (["train", "llama-3.1-8b", "--model", "qwen2.5-7b", "--tokens", "1T", "--count", "8"], "name one of them"),
        (["schedule", "1f1b", "--forward", "0"], "--forward 0 is no time"),
        (["schedule", "1f1b", "--hop", "-1"], "--hop -1 is no time"),
        (["schedule", "1f1b", "--backward", "nan"], "--backward nan is no time"),
        (["schedule", "1f1b", "--stages", "100000", "--microbatches", "100000"], "too many to draw"),
    ],
)
def test_what_cannot_be_is_answered_in_a_sentence(arguments, says):
    with pytest.raises(UserError, match=says):
        run(*arguments)


def test_schedules_and_the_grading_speak_french_too():
    assert "microlots prend" in run("schedule", "1f1b", "--stages", "2", "--microbatches", "4", "--lang", "fr")
    assert "erreur médiane" in run("grade", "--lang", "fr")


def test_a_chart_too_wide_for_text_says_so_instead():
    assert "--svg FILE" in run("schedule", "1f1b", "--forward", "1e-9")


def test_a_small_change_to_anothers_model_is_not_called_a_small_model():
    shown = run("rules", "3e24", "--modifies", "1e25")
    assert "the change brings no duties of its own" in shown.splitlines()[0]
    assert "likely" not in shown
    assert "general-purpose" in run("rules", "4e24", "--modifies", "1e25").splitlines()[0]


def test_a_law_without_a_range_shows_no_empty_brackets():
    assert "()" not in run("laws", "--budget", "1e21flop")


def test_export_rules_are_told_in_french_numbers():
    shown = run("rules", "h20", "--lang", "fr").splitlines()[0]
    assert "TPP 2\u202f368 < 21\u202f000" in shown
    assert "mémoire" in shown
    assert "Md" in run("models", "--lang", "fr")


def test_costs_that_were_named_are_told_apart_from_intervals():
    assert "GPT-4 $80 M ($63 M to $100 M named) [claimed]" in run("trend")


@pytest.mark.parametrize(
    ("command", "figure"),
    [
        (["model", "deepseek-v3"], "flops_per_token"),
        (["laws", "--budget", "1e24flop"], "chinchilla.size"),
        (["trend"], "gpt-4.yearly"),
        (["rules", "h20"], "tpp"),
        (["rules", "deepseek-v3", "--tokens", "14.8T"], "training_flop"),
    ],
)
def test_reasons_are_json_where_json_is_asked_for(command, figure):
    told = json.loads(run(*command, "--why", figure, "--json"))
    assert told["name"] == figure
    assert told["inputs"]
