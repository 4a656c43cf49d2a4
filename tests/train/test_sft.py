"""Supervised fine-tuning."""

import pytest
import torch

from spoutnik.recipe.schema import SFTStage
from spoutnik.train.examples import Example, batch_of, encode
from spoutnik.train.optim import Optimizer
from spoutnik.train.sft import sft_step
from spoutnik.train.state import TrainState


def stage(**changes):
    settings = {"steps": 30, "batch_size": 2, "learning_rate": 0.02, "grad_clip": 1e6}
    return SFTStage.model_validate({"name": "stage", "from": "x", "data": "d", **settings, **changes})


def test_the_loss_is_the_mean_cross_entropy_of_the_batchs_answer_tokens(model, context):
    examples = [Example(list(range(1, 4 + index)), 2) for index in range(16)]
    batch, expected = batch_of(examples, 0, 2, context.seed), []
    with torch.no_grad():
        for example in batch:
            logits_TV = model(torch.tensor([example.ids]))[0].log_softmax(-1)
            expected += [-float(logits_TV[place - 1, example.ids[place]]) for place in range(2, len(example.ids))]
    metrics = sft_step(TrainState(model, Optimizer(model, 0.0, 0.0)), stage(), examples, 2, context)
    assert metrics["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert metrics["tokens"] == len(expected) + 4
    assert len(batch[0].ids) != len(batch[1].ids), "padding took part"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_answers_are_soon_known_by_heart(model, tokenizer, context, dtype):
    examples = [
        encode(
            [{"role": "user", "content": f"Make {n}."}, {"role": "assistant", "content": f"{n}\n</think>\n<answer>{n}</answer>"}], tokenizer
        )
        for n in (7, 8)
    ]
    state = TrainState(model, Optimizer(model, 0.02, 0.0))
    losses = [sft_step(state, stage(dtype=dtype), examples, 2, context)["loss"] for _ in range(30)]
    assert losses[-1] < 0.1 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
