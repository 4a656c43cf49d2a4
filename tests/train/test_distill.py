"""Distillation by distributions over given answers: from a teacher that is here, and from one on disk."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_tokenizers import renumbered

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.errors import UserError
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.distillation import DistillStage, LogitsStage
from spoutnik.teacher.stored import StoredLogits
from spoutnik.text.tokenizer import train_bpe
from spoutnik.train.distill import logits_step, prepare, run_distill
from spoutnik.train.examples import batch_of
from spoutnik.train.logits import run_logits
from spoutnik.train.optim import Optimizer
from spoutnik.train.state import TrainState


def stage(**changes):
    settings = {"data": "d", "steps": 12, "batch_size": 3, "learning_rate": 3e-3}
    return DistillStage.model_validate({"name": "stage", "from": "s", "mode": "logits", **settings, **changes})


@pytest.fixture
def there(config, model, tokenizer, tmp_path):
    """A student, a teacher and answers, on disk."""
    teacher = CausalLM(config)
    initialise(teacher, seed=2)
    with torch.no_grad():
        teacher.model.norm.weight.mul_(3)
    save_checkpoint(model, tokenizer, tmp_path / "student")
    save_checkpoint(teacher, tokenizer, tmp_path / "teacher")
    rows = [{"prompt": f"Make {n}.", "completion": f"{n}\n</think>\n<answer>{'1 + ' * (n % 3)}1</answer>"} for n in range(9)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"from": str(tmp_path / "student"), "data": str(tmp_path / "answers.jsonl"), "teacher": str(tmp_path / "teacher")}


def store(there, context, top_k=None, name="stored"):
    settings = {"name": name, "from": there["teacher"], "data": there["data"], "top_k": top_k}
    own = replace(context, name=name, directory=context.directory.with_name(name))
    own.directory.mkdir()
    run_logits(LogitsStage.model_validate(settings), own)
    return {"from": there["from"], "data": str(own.directory)}


def one_step(stage, model, tokenizer, context, rate=0.0):
    supervision = prepare(stage, model, tokenizer, context)
    state = TrainState(model, Optimizer(model, rate, 0.0))
    return [logits_step(state, stage, supervision, context) for _ in range(stage.steps)]


def test_the_loss_is_the_mean_divergence_over_the_answers_tokens(there, config, model, tokenizer, context, tmp_path):
    whole = stage(**there, steps=1)
    supervision = prepare(whole, model, tokenizer, context)
    expected = []
    with torch.no_grad():
        for example in batch_of(supervision.examples, 0, 3, context.seed):
            ids, start = example.student.ids, example.student.answer_start
            teacher, student = (m(torch.tensor([ids]))[0, start - 1 : -1].log_softmax(-1) for m in (supervision.teacher.model, model))
            expected += (teacher.exp() * (teacher - student)).sum(-1).tolist()
    (metrics,) = one_step(whole, model, tokenizer, context)
    assert metrics["forward_kl"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_a_student_of_given_answers_approaches_the_teacher(there, model, tokenizer, context):
    steps = one_step(stage(**there, steps=20), model, tokenizer, context, rate=1e-2)
    assert steps[-1]["forward_kl"] < 0.6 * steps[0]["forward_kl"]


def test_stored_whole_a_teacher_teaches_as_if_it_were_here(there, model, tokenizer, context):
    (dense,) = one_step(stage(**there, steps=1), model, tokenizer, context)
    (stored,) = one_step(stage(**store(there, context, top_k=10_000), steps=1), model, tokenizer, context)
    assert stored["forward_kl"] == pytest.approx(dense["forward_kl"], rel=2e-3), "half precision is all that was lost"
    assert stored["grad_norm"] == pytest.approx(dense["grad_norm"], rel=2e-3)


def test_the_likeliest_alone_teach_a_little_less_and_a_student_that_is_the_teacher_nothing(there, model, tokenizer, context):
    (dense,) = one_step(stage(**there, steps=1), model, tokenizer, context)
    (stored,) = one_step(stage(**store(there, context, top_k=5), steps=1), model, tokenizer, context)
    assert 0 < stored["forward_kl"] < dense["forward_kl"]
    itself = store({**there, "teacher": there["from"]}, context, top_k=5, name="itself")
    (nothing,) = one_step(stage(**itself, steps=1), model, tokenizer, context)
    assert abs(nothing["forward_kl"]) < 1e-4, "up to half precision"
    assert nothing["grad_norm"] < 1e-2 * stored["grad_norm"]


def test_the_whole_stage_writes_a_checkpoint_and_needs_no_teacher(there, context, tmp_path):
    stored = store(there, context)
    (tmp_path / "teacher").rename(tmp_path / "gone")
    (tmp_path / "answers.jsonl").unlink()
    run_distill(stage(**stored, steps=2), context)
    assert (context.checkpoint_dir / "model.safetensors").is_file()


def test_a_teacher_with_other_ids_teaches_the_same(there, config, model, tokenizer, context, tmp_path):
    (expected,) = one_step(stage(**there, steps=1), model, tokenizer, context)
    other = renumbered(tokenizer)
    teacher = CausalLM(config)
    initialise(teacher, seed=2)
    content = {tokenizer.backend.id_to_token(index): index for index in range(tokenizer.vocab_size)}
    order = [content[other.backend.id_to_token(index)] for index in range(other.vocab_size)]
    with torch.no_grad():
        teacher.model.norm.weight.mul_(3)
        for weight in (teacher.model.embed_tokens.weight, teacher.lm_head.weight):
            weight.copy_(weight[order])
    save_checkpoint(teacher, other, tmp_path / "teacher")
    (found,) = one_step(stage(**there, steps=1), model, tokenizer, context)
    assert found["forward_kl"] == pytest.approx(expected["forward_kl"], rel=1e-4)


def test_a_teacher_that_cuts_text_otherwise_is_refused_with_what_to_do_instead(there, config, model, tokenizer, context, tmp_path):
    other = train_bpe(["another text, other merges " * 5], 300, digits=3)
    save_checkpoint(model, other, tmp_path / "teacher")
    with pytest.raises(UserError, match=r"different tokens.*mode = 'on-policy'.*'samples'"):
        prepare(stage(**there), model, tokenizer, context)
    with pytest.raises(UserError, match=r"written with another tokenizer.*mode = 'samples'"):
        prepare(stage(**store(there, context)), model, tokenizer, context)


def test_stored_answers_in_another_chat_template_are_refused(there, model, tokenizer, context):
    stored = store(there, context)
    other = renumbered(tokenizer)
    other.backend, other.chat_template = tokenizer.backend, "{{ messages[0].content }}"
    with pytest.raises(UserError, match="another chat template"):
        prepare(stage(**stored), model, other, context)


def test_teachers_are_named_in_what_was_stored(there, context):
    context.lineage["teachers"] = [{"teacher": "big"}]
    assert StoredLogits(context.resolve(store(there, context)["data"])).teachers == [{"teacher": "big"}]
