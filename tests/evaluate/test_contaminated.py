"""An evaluation says which of its problems stand in training data, and what is solved of the others."""

import json

import pytest
from scripted import scripted_model

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.cli.eval_text import tables
from spoutnik.errors import UserError
from spoutnik.evaluate.evaluate import run_eval
from spoutnik.evaluate.figures import Evaluation
from spoutnik.preflight import check_parts
from spoutnik.recipe import EvalStage, parse_recipe
from spoutnik.run.record import read
from spoutnik.run.report import render
from spoutnik.text.tokenizer import train_bpe

WORDS = "the keeper of the lighthouse counts ships in the morning and in the evening of every day and writes down the number"
QUESTIONS = [f"On island {number} {' '.join(f'{word}{number}' for word in WORDS.split())}. What is it?" for number in range(6)]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def stage(tmp_path):
    """A stage in which a model that answers 7 to everything gets six questions, of which those with odd numbers have that answer."""
    tokenizer = train_bpe(["one 7<answer> </answer> "] * 20, vocab_size=340)
    model = tmp_path / "made" / "checkpoints" / "seven"
    save_checkpoint(scripted_model(tokenizer, "one</think><answer>7</answer>"), tokenizer, model)
    rows = [{"question": question, "answer": "7" if number % 2 else "8"} for number, question in enumerate(QUESTIONS)]
    task = {"name": f"jsonl:{lines(tmp_path / 'questions.jsonl', rows)}", "belongs_to": "held-out", "problems": 6}

    def make(**changes):
        return EvalStage.model_validate({"name": "stage", "models": [str(model)], "tasks": [task], "max_new_tokens": 20, **changes})

    return make


def evaluation(stage, context):
    run_eval(stage, context)
    return Evaluation.model_validate_json((context.directory / "evaluation.json").read_text(encoding="utf-8"))


def test_named_training_data_mark_the_problems_that_they_hold(stage, context, tmp_path):
    leaked = lines(
        tmp_path / "train.jsonl", [{"text": f"As I said: {QUESTIONS[1].upper()} Indeed."}, {"text": QUESTIONS[2][20:]}, {"text": WORDS}]
    )
    whole = evaluation(stage(against=[leaked]), context)
    [found] = whole.contaminations
    assert (found.problems, found.contaminated, found.whole, found.data, found.not_looked_into) == (6, 2, 1, [leaked], [])
    [model] = found.models
    assert (model.n, model.all.value, model.clean.value) == (4, 0.5, 0.5)
    assert model.clean.low < model.all.low, "fewer problems say less"
    assert "pass@1 of the clean" in tables(whole)


def test_a_model_that_a_run_made_is_held_against_what_that_run_learnt_from(stage, context, tmp_path):
    run = tmp_path / "made"
    trained = lines(tmp_path / "samples.jsonl", [{"prompt": question, "completion": "7"} for question in QUESTIONS])
    folder = run / "stages" / "tuned"
    folder.mkdir(parents=True)
    (folder / "definition.json").write_text(json.dumps({"kind": "sft", "from": "smollm2", "data": trained}))
    (run / "record.jsonl").write_text("")
    assert evaluation(stage(), context).contaminations == [], "a checkpoint without a lineage"
    (run / "checkpoints" / "seven" / "spoutnik.json").write_text("{}")
    whole = evaluation(stage(), context)
    [found] = whole.contaminations
    assert (found.contaminated, found.whole, found.not_looked_into) == (6, 6, ["smollm2"])
    assert [(model.n, model.clean) for model in found.models] == [(0, None)]
    page = render(read(context.record.path))
    assert "<h2>Contamination</h2>" in page
    assert "What smollm2 was made of cannot be looked into" in page


def test_training_data_that_are_not_there_are_missed_before_anything_runs(stage):
    settings = stage(against=["nowhere.jsonl"]).model_dump(by_alias=True, mode="json", exclude_none=True)
    recipe = parse_recipe({"name": "r", "stage": [settings]}, "r")
    with pytest.raises(UserError, match="no training data at nowhere"):
        check_parts(recipe, recipe.stages[0])
