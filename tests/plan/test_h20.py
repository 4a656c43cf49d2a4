"""A laboratory with only H20: slow at training, quick for one reader, and what lies between."""

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.answer import why
from spoutnik.plan.chips import chip
from spoutnik.plan.h20 import laboratory
from spoutnik.plan.models import open_model
from spoutnik.plan.speech import speech
from spoutnik.plan.uncertain import middle


@pytest.fixture(scope="module")
def found():
    return laboratory(
        open_model("deepseek-v3"), open_model("llama-3.1-70b"), 14.8e12, chip("h20"), chip("h800-sxm"), 2048, batch_tokens=62_914_560
    )


def test_training_takes_at_most_as_many_times_longer_as_operations_are_fewer(found):
    ratio = middle(found.row("training_hours").ratio)
    assert 2 < ratio <= 989 / 148 * 1.05
    assert found.needed.middle == pytest.approx(ratio * 2048, rel=0.02)
    bounds = found.row("training_hours").second.value.range()
    assert bounds.p10 < 2.664e6 < bounds.p90, "DeepSeek's own hours"


def test_one_reader_is_served_faster_for_memory_was_not_cut(found):
    assert 1 < middle(found.row("one_reader").ratio) < 4.0 / 3.35 + 0.01


def test_many_at_once_is_a_matter_of_attention_and_agrees_with_what_was_measured(found):
    """SGLang: 5.7 k tokens/s a node of H20, 22.3 k a node of H100."""
    assert middle(found.row("many").ratio) == pytest.approx(5.7 / 22.3, rel=0.25)
    assert middle(found.row("many_dense").ratio) > 0.7


def test_rules_see_a_small_chip_and_the_balance_says_why(found):
    assert middle(found.row("tpp").ratio) == pytest.approx(148 / 989, rel=0.01)
    assert found.row("balance").first.middle == pytest.approx(37, abs=0.1)
    assert found.row("balance").second.middle == pytest.approx(295, abs=1)


def test_what_is_left_to_train_is_a_range_and_everything_has_its_reasons(found):
    bounds = found.best_size.value.range()
    assert 1e10 < bounds.p10 < bounds.p90 < 1e12
    for figure in found.figures().values():
        assert len(why(figure, speech("en")).splitlines()) >= 2


def test_a_laboratory_needs_some_days():
    with pytest.raises(UserError, match="--days 0"):
        laboratory(open_model("llama-3.1-8b"), open_model("llama-3.1-8b"), 1e12, chip("h20"), chip("h800-sxm"), 64, days=0.0)


def test_a_chip_without_a_price_is_set_beside_all_the_same():
    model = open_model("llama-3.1-8b")
    found = laboratory(model, model, 1e12, chip("ascend-910c"), chip("h800-sxm"), 64, batch_tokens=1 << 22)
    assert "many_usd" not in {row.name for row in found.rows}
    small = open_model("llama-3.2-1b")
    bare = laboratory(small, small, 1e10, chip("xeon-amx"), chip("h800-sxm"), 2)
    assert "performance_density" not in {row.name for row in bare.rows}
    assert found.needed.middle > 0


def test_a_chip_that_cannot_answer_is_told():
    model = open_model("deepseek-v3")
    with pytest.raises(UserError, match="take another chip or model"):
        laboratory(model, model, 1e12, chip("a10"), chip("h800-sxm"), 2048, batch_tokens=62_914_560)
