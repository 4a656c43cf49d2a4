"""Log-probabilities of answers."""

import pytest
import torch
from tiny_models import tiny_model

from spoutnik.tasks import make
from spoutnik.train.examples import collate
from spoutnik.train.rollouts import rollout_engine, sample_rollouts
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in, engine_logprobs, rescored, spread, with_values


def test_answers_are_scored_as_the_whole_model_would_at_the_temperature():
    model = tiny_model("llama")
    ids_BT, mask_BT = collate([[1, 2, 3, 4, 5], [6, 7, 8]], [2, 1])
    with torch.no_grad():
        found_BT = answer_logprobs(answer_logits(model, ids_BT, mask_BT), ids_BT, mask_BT, temperature=0.7)
        expected_BT = (model(ids_BT) / 0.7).log_softmax(-1)[:, :-1].gather(-1, ids_BT[:, 1:, None])[..., 0]
    torch.testing.assert_close(found_BT[:, 1:], expected_BT * mask_BT[:, 1:])
    assert torch.equal(found_BT[:, 0], torch.zeros(2))


def test_no_answer_at_all_gives_zeros():
    model = tiny_model("llama")
    ids_BT, mask_BT = torch.tensor([[1, 2, 3]]), torch.zeros(1, 3)
    assert torch.equal(answer_logprobs(answer_logits(model, ids_BT, mask_BT), ids_BT, mask_BT), torch.zeros(1, 3))


def test_padding_changes_no_gradient():
    grads = []
    for longer in ([], [9, 9, 9, 9, 9, 9]):
        model = tiny_model("deepseek-v3")
        ids_BT, mask_BT = collate([[1, 2, 3, 4], [5, 6, *longer]], [2, 2])
        mask_BT[1] = 0
        answer_logprobs(answer_logits(model, ids_BT, mask_BT), ids_BT, mask_BT)[0].sum().backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
    for name in grads[0]:
        torch.testing.assert_close(grads[1][name], grads[0][name], rtol=1e-4, atol=1e-5)


def test_in_bfloat16_few_shapes_are_multiplied_and_nothing_else_changes():
    """Each shape costs kernels that are kept; so does each number of rows of the head."""
    model, shapes, rows = tiny_model("llama"), set(), set()
    model.model.layers[0].mlp.register_forward_hook(lambda module, given, made: shapes.add(given[0].shape[1]))
    model.lm_head.register_forward_hook(lambda module, given, made: rows.add(given[0].shape[0]))
    for length in range(3, 40, 3):
        ids_BT, mask_BT = collate([list(range(1, length + 1)), [1, 2, 3]], [1, 2])
        with computed_in("bfloat16", ids_BT):
            expected_NV = model(ids_BT)[:, :-1][mask_BT[:, 1:] > 0]
            shapes.clear()
            rows.clear()
            found_NV = answer_logits(model, ids_BT, mask_BT)
        torch.testing.assert_close(found_NV, expected_NV, rtol=0.05, atol=0.05)
        assert found_NV.shape == expected_NV.shape
        assert (shapes, rows) == ({-(-(length - 1) // 16) * 16}, {128})


def test_an_engine_scores_the_same_places_and_its_own_samples_to_the_bit(tokenizer, model):
    task = make("countdown", numbers=[2], high=9)
    engine = rollout_engine(model, tokenizer, 6)
    rollouts = sample_rollouts(engine, task, [task.problem("train", 0, index) for index in range(2)], 3, 0.7, 9, seed=1)
    ids_BT, mask_BT = collate([[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts])
    found_BT = engine_logprobs(engine, rollouts, mask_BT, 0.7)
    with torch.no_grad():
        expected_BT = answer_logprobs(answer_logits(model, ids_BT, mask_BT), ids_BT, mask_BT, 0.7)
    torch.testing.assert_close(found_BT, expected_BT)
    assert (rescored(engine, rollouts, 0.7) == 0.0) == engine.exact
    rollouts[4].logprobs[2] += 0.5
    assert rescored(engine, rollouts[3:], 0.7) == pytest.approx(0.5 / sum(len(r.token_ids) for r in rollouts[3:]), rel=1e-4)


def test_numbers_are_spread_over_the_masked_places_row_by_row():
    mask_BT = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert spread([[1.0, 2.0], [], [3.0]], mask_BT).tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 3.0]]


def test_the_value_is_one_computations_and_the_derivative_the_others():
    """Derived numerically, the value changes as the derivative says: two computations of one function."""

    def shifted(logits_NV):
        peak_N1 = logits_NV.amax(-1, keepdim=True).detach()
        return (logits_NV - peak_N1 - (logits_NV - peak_N1).exp().sum(-1, keepdim=True).log())[:, 3]

    logits_NV = (torch.randn(4, 9, generator=torch.Generator().manual_seed(1)).double() * 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: with_values(x.log_softmax(-1)[:, 3], shifted(x).detach()), logits_NV)
    wrong = torch.autograd.gradcheck(
        lambda x: with_values(x.log_softmax(-1)[:, 3], 2 * shifted(x).detach()), logits_NV, raise_exception=False
    )
    assert not wrong, "the check can fail"


def test_values_are_taken_to_the_bit_and_the_gradient_goes_to_what_is_derived():
    generator = torch.Generator().manual_seed(2)
    derived = torch.randn(1000, generator=generator).requires_grad_()
    values = derived.detach() * (1 + 1e-6 * torch.randn(1000, generator=generator))
    weights = torch.randn(1000, generator=generator)
    found = with_values(derived, values)
    assert torch.equal(found, values)
    (found * weights).sum().backward()
    assert torch.equal(derived.grad, weights)
