"""A checkpoint answers like any other teacher, and says how likely tokens are."""

import torch
from scripted import scripted_model

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.teacher.base import Question, Sampling
from spoutnik.teacher.local import LocalTeacher
from spoutnik.text.tokenizer import train_bpe
from spoutnik.train.examples import collate


def test_it_thinks_and_answers(tmp_path):
    tokenizer = train_bpe(["one two three four five six "] * 20, vocab_size=320)
    save_checkpoint(scripted_model(tokenizer, "one two</think> three four"), tokenizer, tmp_path / "model")
    heard = []
    with LocalTeacher("me", tmp_path / "model") as teacher:
        [answer] = teacher.answers([Question(({"role": "user", "content": "say"},))], Sampling(20, 0.0), lambda *told: heard.append(told))
    assert (answer.reasoning, answer.text, answer.finish_reason, answer.model, heard) == (
        "one two",
        "three four",
        "stop",
        "me",
        [(0, answer)],
    )
    assert teacher.provenance is None
    assert teacher.fingerprint == tokenizer.fingerprint()


def test_an_answer_depends_on_question_and_sample_not_on_company(model, tokenizer, tmp_path):
    save_checkpoint(model, tokenizer, tmp_path / "model")
    teacher = LocalTeacher("me", tmp_path / "model", seed=1)
    asked = [Question(({"role": "user", "content": text},), sample) for text in ("Make 4", "Make 5") for sample in (0, 1)]
    together = teacher.answers(asked, Sampling(6), lambda place, result: None)
    assert [teacher.answers([question], Sampling(6), lambda place, result: None)[0] for question in asked] == together
    assert len({(answer.text, answer.reasoning) for answer in together}) > 1


def test_log_probabilities_are_the_models(model, tokenizer, tmp_path):
    save_checkpoint(model, tokenizer, tmp_path / "model")
    found = LocalTeacher("me", tmp_path / "model").logprobs(*collate([[5, 6, 7], [5, 6, 8, 9]], [2, 1]))
    with torch.no_grad():
        expected = model.eval()(torch.tensor([[5, 6, 7], [5, 6, 8]])).log_softmax(-1)
    assert torch.allclose(found, torch.cat([expected[0, 1:2], expected[1]]), atol=1e-6)
