"""Log-probabilities of answers."""

import torch
from tiny_models import tiny_model

from spoutnik.train.examples import collate
from spoutnik.train.scoring import answer_logits, answer_logprobs


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
