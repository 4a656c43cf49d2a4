"""What a teacher says of a student's answers must not depend on how it numbers its tokens, nor need its way to cut text."""

from dataclasses import replace

import pytest
import tokenizers
import torch
from tiny_tokenizers import renumbered

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.errors import UserError
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.tasks import make
from spoutnik.teacher.local import LocalTeacher
from spoutnik.text.alignment import shared_tokens
from spoutnik.text.tokenizer import Tokenizer, train_bpe
from spoutnik.train.aligned import AlignedTeacher
from spoutnik.train.examples import collate
from spoutnik.train.rollouts import rollout_engine, sample_rollouts
from spoutnik.train.scoring import answer_logits, answer_logprobs, answer_places

TASK = make("countdown", numbers=[2], high=9)


def with_rows(model, config, ids):
    """A model whose row ids[i] of embedding and head is the given model's row i; what it has beyond is random."""
    other = CausalLM(config)
    initialise(other, seed=3)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fresh = other.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        fresh[name][ids] = state.pop(name)[: len(ids)]
    other.load_state_dict({**fresh, **state})
    return other


@pytest.fixture
def student(config, tokenizer):
    model = CausalLM(config)
    initialise(model, seed=1)
    return model


@pytest.fixture
def teacher(config):
    model = CausalLM(config)
    initialise(model, seed=2)
    with torch.no_grad():
        model.model.norm.weight.mul_(3)
    return model


@pytest.fixture
def answered(student, tokenizer):
    """Answers of the student, its logits and its log-probabilities."""
    problems = [TASK.problem("train", 0, index) for index in range(4)]
    rollouts = sample_rollouts(rollout_engine(student, tokenizer, 4), TASK, problems, 1, 1.0, 12, 0)
    ids_BT, mask_BT = collate([[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts])
    with torch.no_grad():
        logits_NV = answer_logits(student, ids_BT, mask_BT)
    return rollouts, logits_NV, answer_logprobs(logits_NV, ids_BT, mask_BT)[answer_places(mask_BT)]


def asked(tmp_path, model, tokenizer, student, student_tokenizer):
    save_checkpoint(model, tokenizer, tmp_path / "teacher")
    return AlignedTeacher(LocalTeacher("t", tmp_path / "teacher"), student_tokenizer, student.config.vocab_size)


def test_a_teacher_with_other_ids_says_the_same(tmp_path, student, teacher, tokenizer, answered):
    expected = asked(tmp_path, teacher, tokenizer, student, tokenizer).pull(*answered)
    other = renumbered(tokenizer)
    pairs = shared_tokens(tokenizer, other)
    ids = [their for _, their in sorted(zip(pairs.ours, pairs.theirs, strict=True))]
    found = asked(tmp_path, with_rows(teacher, teacher.config, ids), other, student, tokenizer).pull(*answered)
    assert found.counted.all()
    torch.testing.assert_close(found.divergence, expected.divergence, atol=1e-5, rtol=1e-4)


def test_a_teacher_whose_embeddings_are_padded_further_says_nearly_the_same(tmp_path, student, teacher, tokenizer, answered):
    expected = asked(tmp_path, teacher, tokenizer, student, tokenizer).pull(*answered)
    padded = with_rows(teacher, teacher.config.with_(vocab_size=teacher.config.vocab_size + 4), list(range(teacher.config.vocab_size)))
    with torch.no_grad():
        padded.lm_head.weight[-4:] = 0
    aligned = asked(tmp_path, padded, tokenizer, student, tokenizer)
    torch.testing.assert_close(aligned.pull(*answered).divergence, expected.divergence, atol=0.1, rtol=0.1)


def test_an_answer_counts_up_to_a_token_that_the_teacher_lacks(tmp_path, student, teacher, tokenizer, answered):
    rollouts, logits_NV, logprobs_N = answered
    foreign = rollouts[0].token_ids[2]
    aligned = asked(tmp_path, teacher, renumbered(tokenizer), student, tokenizer)
    place = aligned.shared.ours.index(foreign)
    del aligned.shared.ours[place], aligned.shared.theirs[place]
    found = aligned.pull(rollouts, logits_NV, logprobs_N)
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    for rollout, counted in zip(rollouts, found.counted.split(lengths), strict=True):
        seen = rollout.token_ids.index(foreign) + 1 if foreign in rollout.token_ids else len(rollout.token_ids)
        assert counted.tolist() == [True] * seen + [False] * (len(counted) - seen)
    assert torch.isfinite(found.divergence).all()
    assert not found.divergence[~found.counted].any()


def test_by_chunks_a_teacher_with_the_same_cuts_says_of_each_token_what_it_says_by_tokens(tmp_path, student, teacher, tokenizer, answered):
    texts = ("3 + 4 = 7\n</think>\n<answer>3 + 4</answer>", "a first try é")  # an untrained student cuts nothing as its tokenizer does
    answers = [[*tokenizer.encode(texts[0]), tokenizer.eos_token_id], tokenizer.encode(texts[1])]
    rollouts = [replace(rollout, token_ids=answer) for rollout, answer in zip(answered[0], answers, strict=False)]
    ids_BT, mask_BT = collate([[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts])
    with torch.no_grad():
        logprobs_N = answer_logprobs(answer_logits(student, ids_BT, mask_BT), ids_BT, mask_BT)[answer_places(mask_BT)]
    aligned = asked(tmp_path, teacher, tokenizer, student, tokenizer)
    found = aligned._by_chunk(rollouts, logprobs_N)
    said_N = aligned.teacher.logprobs(ids_BT, mask_BT).gather(-1, ids_BT[mask_BT > 0][:, None])[:, 0]
    torch.testing.assert_close(found.advantages, said_N - logprobs_N, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.estimate, logprobs_N - said_N, atol=1e-4, rtol=1e-4)
    assert found.counted.all()


def test_chunks_of_a_teacher_with_other_cuts_add_up_to_what_both_say_of_the_text(tmp_path, student, tokenizer, answered):
    other = train_bpe(["Make numbers from other words 12 345 " * 9], 320, digits=3)
    config = student.config.with_(vocab_size=other.vocab_size, eos_token_id=other.eos_token_id)
    model = CausalLM(config)
    initialise(model, seed=4)
    rollouts, logits_NV, logprobs_N = answered
    aligned = asked(tmp_path, model, other, student, tokenizer)
    assert aligned.shared is None
    found = aligned.pull(rollouts, logits_NV, logprobs_N)
    assert found.counted.any()
    assert not found.divergence.any()
    lengths = [rollout.length for rollout in rollouts]
    for rollout, counted, estimate, ours in zip(
        rollouts, *(values.split(lengths) for values in (found.counted, found.estimate, logprobs_N)), strict=True
    ):
        answer, cut = aligned._cut(rollout)
        prompt = other.encode(other.render([{"role": "user", "content": rollout.problem.prompt}]))
        ids_BT, mask_BT = collate([[*prompt, *answer]], [len(prompt)])
        theirs = aligned.teacher.logprobs(ids_BT, mask_BT).gather(-1, torch.tensor(answer)[:, None])[:, 0]
        covered = cut[-1].theirs[1] if cut else 0
        expected = ours[counted].sum() - theirs[:covered].sum()
        torch.testing.assert_close(estimate.sum(), expected, atol=1e-4, rtol=1e-4)


def test_templates_that_disagree_about_who_opens_the_thinking_are_refused(tmp_path, student, teacher, tokenizer):
    other = renumbered(tokenizer)
    other.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    with pytest.raises(UserError, match="opens the thinking"):
        asked(tmp_path, teacher, other, student, tokenizer)


def test_a_tokenizer_without_bytes_is_refused_with_what_to_do_instead(tmp_path, student, teacher, tokenizer):
    vocabulary = {token: index for index, token in enumerate(["<unk>", "a", "b"])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>"))
    other = Tokenizer(backend, chat_template=tokenizer.chat_template)
    with pytest.raises(UserError, match=r"not byte-level.*mode = 'samples'"):
        asked(tmp_path, teacher, other, student, tokenizer)
