"""Programmes: the published sums of V3 and R1, prediction beside disclosure, and files with mistakes in them."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.programme import plan_programme
from spoutnik.plan.programme_file import Programme, check, names, read_programme
from spoutnik.plan.uncertain import Uncertain, middle

LINE = {"name": "a", "kind": "given", "gpu_hours": 10.0}


@pytest.fixture(scope="module")
def disclosed():
    return plan_programme(read_programme("deepseek-v3-r1"))


@pytest.fixture(scope="module")
def predicted():
    return plan_programme(read_programme("deepseek-v3-r1"), predict=True)


def total(plan, group, name):
    return sum(line.figures[name].value for line in plan.lines if line.group == group)


def test_v3_is_2788_thousand_hours_and_5_576_million_dollars(disclosed):
    assert total(disclosed, "DeepSeek-V3", "gpu_hours") == pytest.approx(2_788_000)
    assert total(disclosed, "DeepSeek-V3", "cost_usd") == pytest.approx(5_576_000)


def test_r1_is_147336_hours_and_294_thousand_dollars(disclosed):
    assert total(disclosed, "DeepSeek-R1", "gpu_hours") == 147_336
    assert round(total(disclosed, "DeepSeek-R1", "cost_usd"), -3) == pytest.approx(294_672, abs=1000)
    assert total(disclosed, "DeepSeek-R1", "cost_usd") == 294_672


def test_thirty_days_of_answers_cost_thirty_times_the_published_day(disclosed):
    assert total(disclosed, "service", "cost_usd") == pytest.approx(30 * 87_072, rel=1e-3)


def test_the_sum_is_the_sum_of_its_lines(disclosed):
    hours = sum(line.figures["gpu_hours"].middle for line in disclosed.lines)
    assert disclosed.figures["gpu_hours"].middle == pytest.approx(hours, rel=1e-6)


def test_predicting_leaves_only_what_has_no_recipe_disclosed(predicted):
    status = {line.name: line.status for line in predicted.lines}
    assert [name for name, one in status.items() if one == "disclosed"] == ["R1, data for fine-tuning", "R1, reinforcement learning"]
    assert isinstance(predicted.figures["cost_usd"].value, Uncertain)


def test_predictions_are_of_the_size_of_what_was_disclosed(disclosed, predicted):
    """Left out: V3's post-training, of which neither the length of its samples nor its other parts are disclosed."""
    for first, second in zip(disclosed.lines, predicted.lines, strict=True):
        if first.name != "V3, post-training":
            assert 0.5 < second.figures["gpu_hours"].middle / first.figures["gpu_hours"].middle < 1.6, first.name


def test_an_extension_is_prepared_as_well_as_the_pretraining_that_it_ends(predicted):
    """Alone it would count as a small run, whose practice is poorer."""
    extension = next(line for line in read_programme("deepseek-v3-r1").lines if line["name"] == "V3, context extension")
    alone = plan_programme(Programme("alone", ({**extension, "group": ""},)), predict=True)
    together = next(line for line in predicted.lines if line.name == extension["name"])
    assert together.figures["gpu_hours"].middle < 0.9 * alone.figures["gpu_hours"].middle


def test_development_multiplies_training_and_not_the_service(disclosed):
    final = disclosed.figure("final_runs_usd").middle
    service = total(disclosed, "service", "cost_usd")
    assert final == pytest.approx(disclosed.figures["cost_usd"].middle - service, rel=1e-4)
    ratio = (disclosed.figures["cost_with_development_usd"].value / final).range()
    assert (ratio.p10, ratio.p90) == pytest.approx((1.5, 5.6), rel=0.02)


def test_every_programme_that_comes_along_can_be_read_in_both_languages():
    for name in names():
        english, french = read_programme(name, "en"), read_programme(name, "fr")
        assert len(english.lines) == len(french.lines)
        assert english.title != french.title


def test_a_price_replaces_the_files(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('chip = "h800-sxm"\nprice = 2\n[[line]]\nname = "a"\nkind = "given"\ndevices = 8\nhours = 10\n')
    assert plan_programme(read_programme(str(path))).figures["cost_usd"].value == 160
    assert plan_programme(read_programme(str(path)), price=3.0).figures["cost_usd"].value == 240


@pytest.mark.parametrize(("change", "words"), [
    ({"kind": "magic"}, "must be one of given, train"),
    ({"gpu_hour": 1}, "unknown key 'gpu_hour'"),
    ({"gpu_hours": "many"}, "must be a number"),
    ({"gpu_hours": -1}, "not negative"),
    ({"gpu_hours": True}, "must be a number"),
    ({"kind": "rl"}, "'model' is missing"),
    ({"kind": "train", "model": "x", "tokens": [1, 2], "sequence_length": 1}, "lists of the same length"),
    ({"kind": "serve", "model": "x", "input_tokens": 1, "output_tokens": 1, "prefill_per_node": 1}, "belong together"),
    ({"kind": "train", "model": "x", "tokens": 1, "sequence_length": 1, "layout": 3}, "must be a table"),
    ({"devices": 1.5}, "whole number"),
    ({"gpu_hours": float("nan")}, "must be a number"),
    ({"gpu_hours": float("inf")}, "must be a number"),
    ({"gpu_hours": 1e41}, "must be a number"),
    ({"status": "sworn"}, "status is 'sworn'; it must be one of disclosed"),
    ({"kind": "train", "model": "x", "tokens": [], "sequence_length": []}, "tokens is empty"),
    ({"kind": "train", "model": "x", "tokens": 1, "sequence_length": 4096.5}, "sequence_length is 4096.5; it must be a whole number"),
])  # fmt: skip
def test_a_mistake_in_a_line_is_named_with_file_and_line(change, words):
    with pytest.raises(UserError, match=words) as caught:
        check({"chip": "h800-sxm", "line": [LINE, LINE | change]}, "mine.toml")
    assert "mine.toml, [[line]] 2" in str(caught.value)


@pytest.mark.parametrize(("raw", "words"), [
    ({"line": []}, "needs one or more"), ({"lines": [LINE]}, "unknown key 'lines'"),
    ({"chip": "h100-sxm", "line": [{"name": "a", "kind": "given"}]}, "gpu_hours nor devices and hours"),
    ({"line": [LINE]}, "'chip' is missing"),
])  # fmt: skip
def test_a_mistake_in_a_file_is_named(raw, words):
    with pytest.raises(UserError, match=words):
        check(raw, "mine.toml")


def test_no_such_programme_and_no_toml_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="one of deepseek-v3-r1"):
        read_programme("nothing")
    broken = tmp_path / "broken.toml"
    broken.write_text("title = ")
    with pytest.raises(UserError, match="is not a TOML file"):
        read_programme(str(broken))
    broken.write_bytes(b"title = '\xe9'")
    with pytest.raises(UserError, match="is not a TOML file"):
        read_programme(str(broken))
    broken.write_text("line = ['a']")
    with pytest.raises(UserError, match=r"has no \[\[line\]\]"):
        read_programme(str(broken))


def test_days_and_final_runs_are_told_by_their_lines(disclosed):
    days = disclosed.figures["days"]
    assert [one.name for one in days.inputs] == ["1.days", "2.days", "3.days", "4.days", "6.days", "7.days", "8.days"]
    assert sum(middle(one.value) for one in days.inputs) == pytest.approx(days.middle, rel=0.01)
    final = disclosed.figure("final_runs_usd")
    assert [one.name for one in final.inputs] == [f"{number}.cost_usd" for number in range(1, 8)]
