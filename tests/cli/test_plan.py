"""spoutnik plan as a user calls it: the answer first, JSON, reasons, comparisons, pages, two languages, and one sentence for a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PLAIN = {key: value for key, value in os.environ.items() if not key.startswith("LC_") and key != "LANG"} | {"PYTHONPATH": str(SOURCE)}
SERVE = ("serve", "deepseek-v3", "--input-tokens", "608B", "--output-tokens", "168B", "--price", "2")
TRAIN = ("train", "llama-3.1-8b", "--tokens", "1T", "--devices", "8")
COMMANDS = {
    "train": ("train", "llama-3.1-8b", "--tokens", "15T", "--devices", "1024"),
    "rl": ("rl", "qwen2.5-7b", "--chip", "h100-sxm", "--devices", "8", "--steps", "1000", "--length", "2000"),
    "distill": ("distill", "deepseek-v3", "qwen2.5-7b", "--samples", "800k", "--length", "4000"),
    "serve": SERVE,
    "programme": ("programme", "deepseek-v3-r1"),
}


def plan(*arguments, cwd=None, **environment):
    command = [sys.executable, "-m", "spoutnik", "plan", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=PLAIN | environment, timeout=60, check=False)


def assert_one_sentence(result, words):
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("spoutnik: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_in_its_first_line_in_the_environments_language(name):
    english, french = plan(*COMMANDS[name]), plan(*COMMANDS[name], LANG="fr_FR.UTF-8", PYTHONUTF8="1")
    assert english.returncode == french.returncode == 0, english.stderr + french.stderr
    assert "$" in english.stdout.splitlines()[0]
    assert "\u202f$" in french.stdout.splitlines()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_one_object_with_the_promised_keys(name):
    told = json.loads(plan(*COMMANDS[name], "--json").stdout)
    assert {"params_total", "params_active", "flops_per_token", "memory_gib_per_device"} <= set(told)
    for key in ("gpu_hours", "days", "cost_usd", "energy_kwh", "co2_t"):
        assert set(told[key]) == {"p10", "p50", "p90"}


def test_deepseeks_day_from_the_command_line():
    rates = ("--prefill-per-node", "73.7k", "--decode-per-node", "14.8k", "--days", "1")
    told = json.loads(plan(*SERVE, *rates, "--json").stdout)
    assert told["figures"]["nodes"]["value"] == pytest.approx(226.9, abs=0.05)
    assert told["cost_usd"]["p50"] == pytest.approx(87_072, rel=1e-3)


def test_a_page_is_written_beside_the_answer(tmp_path):
    result = plan(*COMMANDS["train"], "--layout", "pipeline=4 schedule=1f1b", "--html", tmp_path / "plan.html", "--lang", "fr")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert '<html lang="fr">' in text
    assert text.count("<svg") == 3


def test_a_comparison_changes_options_by_their_names(tmp_path):
    result = plan(*SERVE, "--compare", "chip=h200-sxm,speed=50", "--html", tmp_path / "both.html")
    assert "H200" in result.stdout.splitlines()[0]
    assert (tmp_path / "both.html").is_file()
    assert "32 x" in plan(*COMMANDS["train"], "--compare", "count=32", "--price", "2").stdout.splitlines()[0]
    told = json.loads(plan(*SERVE, "--compare", "price=3", "--json").stdout)
    assert told["second_is_cheaper"] == 0
    assert told["difference"]["cost_usd"]["p50"] == pytest.approx(told["first"]["cost_usd"]["p50"] / 2)


def test_the_documented_programme_runs(tmp_path):
    page = (SOURCE.parent / "docs" / "planning.md").read_text(encoding="utf-8")
    example = next(part for part in page.split("```toml\n")[1:] if part.startswith('title = "Mine"')).split("```")[0]
    (tmp_path / "mine.toml").write_text(example, encoding="utf-8")
    told = json.loads(plan("programme", tmp_path / "mine.toml", "--json").stdout)
    assert [line["status"] for line in told["lines"]] == ["computed", "measured"]


def test_why_goes_down_to_the_sources(tmp_path):
    result = plan("programme", "deepseek-v3-r1", "--why", "1.cost_usd", "--html", tmp_path / "plan.html")
    assert (tmp_path / "plan.html").is_file()
    assert result.stdout.startswith("cost_usd (cost) = $5.328 M\n")
    assert "[disclosed: DeepSeek-V3 technical report (arXiv 2412.19437), table 1]" in result.stdout


@pytest.mark.parametrize(("arguments", "words"), [
    ((*SERVE, "--why", "mfo"), "has no figure 'mfo'; it has"),
    ((*SERVE, "--compare", "chips=h20"), "write KEY=VALUE with one of model, input-tokens"),
    ((*SERVE, "--compare", "price=3", "--why", "nodes"), "--why explains one plan"),
    ((*SERVE, "--lang", "de"), "en and fr"),
    ((*SERVE, "--chip", "h8000"), "near it are"),
    ((*SERVE, "--speed", "fast"), "write it as in"),
    ((*SERVE, "--decode-per-node", "1k"), "give both, or neither"),
    ((*SERVE, "--price", "-1"), "below 0"),
    ((*SERVE, "--location", "mars"), "there is"),
    ((*SERVE, "--html", "no/such/folder/x.html"), "a folder that exists"),
    ((*SERVE, "--html", "."), "is a folder; name a file in it"),
    ((*COMMANDS["rl"], "--compare", "old=perhaps"), "neither yes nor no"),
    ((*COMMANDS["train"], "--layout", "overlap=perhaps"), "neither yes nor no"),
    (("serve", "deepseek-v9", "--input-tokens", "1", "--output-tokens", "1"), "near it are"),
    (("train", "llama-3.1-8b", "--tokens", "1T", "--devices", "8", "--layout", "piped=4"), "one of data, tensor"),
    (("train", "llama-3.1-8b", "--tokens", "1T", "--devices", "8", "--layout", "pipeline=four"), "as in pipeline=8"),
    (("programme", "nothing"), "one of deepseek-v3-r1"),
])  # fmt: skip
def test_a_mistake_gets_one_sentence(arguments, words, tmp_path):
    result = plan(*arguments, cwd=tmp_path)
    assert_one_sentence(result, words)


@pytest.mark.parametrize(("arguments", "words"), [
    ((*TRAIN, "--layout", "tensor=3"), "8 x h100-sxm ne peuvent pas être disposées avec tensor=3_; ôtez"),
    ((*TRAIN, "--chip", "h8000"), "Pas de puce «_h8000_» dans la table_; les plus proches_: "),
    (("train", "llama-3.1-8b", "--tokens", "-1T", "--devices", "8"), "ne peut pas être planifié_; donnez un nombre positif"),
    ((*TRAIN, "--budget", "1000"), "1_000_$ ne suffiraient pas_: l'entraînement coûte environ "),
    (("model", "lama"), "Pas de modèle «_lama_»_: ce n'est ni un fichier"),
    (("model", "llama-3.1-8b", "--num-key-value-heads", "7"), "est impossible_: 32 têtes de requêtes"),
    ((*SERVE, "--lang", "de"), "Pas de langue «_de_»_; choisissez en ou fr."),
    ((*SERVE, "--compare", "price=3", "--why", "nodes"), "--why explique un seul plan"),
    (("recipe", "sputnic"), "vouliez-vous dire «_sputnik_»_?"),
])  # fmt: skip
def test_a_mistake_is_told_in_french_where_french_is_spoken(arguments, words, tmp_path):
    result = plan(*arguments, cwd=tmp_path, LC_ALL="fr_FR.UTF-8", PYTHONUTF8="1")
    result.stderr = result.stderr.translate({0x202F: "_", 0xA0: "_", ord("\N{RIGHT SINGLE QUOTATION MARK}"): "'"})
    assert_one_sentence(result, words)


def test_the_language_that_is_asked_for_comes_before_the_environments(tmp_path):
    mistake = ("chips", "--date", "tomorrow")
    assert_one_sentence(plan(*mistake, "--lang", "en", LANG="fr_FR.UTF-8"), "'tomorrow' is no day")
    assert_one_sentence(plan(*mistake, "--lang", "fr", PYTHONUTF8="1"), "est pas un jour")


def test_a_locale_without_signs_gets_the_nearest_of_ascii():
    result = plan(*SERVE, "--why", "co2_t", "--lang", "fr", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()
    assert " t de CO2" in result.stdout
    assert "energy_kwh x grid / 1e6" in result.stdout
    assert plan("model", "lama", "--lang", "fr", PYTHONIOENCODING="ascii").stderr.startswith('spoutnik: Pas de modele " lama "')
