"""What is said to be left of a recipe follows what its finished stages took."""

from spoutnik.run.eta import Eta


def expected(**middles):
    return {name: {"p10": 0.8 * value, "p50": value, "p90": 1.5 * value} for name, value in middles.items()}


def test_a_finished_stage_is_held_against_its_prediction_and_corrects_the_rest():
    eta = Eta(expected(base=300.0, rl=100.0, eval=50.0))
    assert eta.left() == 450
    assert eta.finish("base", 600.0) == "base took 10 min (predicted 5 min 00 s); about 5 min 00 s left"
    assert eta.finish("rl", 200.0) == "rl took 3 min 20 s (predicted 1 min 40 s); about 1 min 40 s left"
    assert eta.finish("eval", 100.0) == "eval took 1 min 40 s (predicted 50 s)"


def test_a_short_beginning_says_nothing_of_the_rest():
    eta = Eta(expected(corpus=10.0, base=300.0))
    assert eta.finish("corpus", 40.0) == "corpus took 40 s (predicted 10 s); about 5 min 00 s left"


def test_of_short_and_of_unpredicted_stages_nothing_is_said():
    eta = Eta(expected(sft=2.0, base=300.0))
    assert eta.finish("sft", 3.0) is None
    assert eta.finish("traces", 100.0) is None
    assert eta.left() == 300
