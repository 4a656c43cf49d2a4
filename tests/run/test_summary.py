"""Which checkpoint a finished run offers to chat with."""

from spoutnik.run.summary import best_checkpoint


def evaluation(model, accuracy, task="puzzles"):
    return {"event": "eval", "stage": "eval", "model": model, "task": task, "accuracy": accuracy}


def test_the_best_on_the_first_task_is_offered():
    events = [evaluation("base", 0.3), evaluation("base", 0.9, "words"), evaluation("tuned", 0.8), evaluation("tuned", 0.1, "words")]
    assert best_checkpoint(events, ["base", "tuned"]) == "tuned"
    assert best_checkpoint(events, ["base"]) == "base"


def test_of_equals_the_later_is_offered():
    assert best_checkpoint([evaluation("base", 0.0), evaluation("tuned", 0.0)], ["base", "tuned"]) == "tuned"


def test_without_an_evaluation_the_last_checkpoint_is_offered():
    assert best_checkpoint([], ["base", "tuned"]) == "tuned"
    assert best_checkpoint([evaluation("outsider", 1.0)], []) is None
