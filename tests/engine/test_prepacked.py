"""Without the kernels, bfloat16 on a CPU decodes from packed weights: the same function, which follows the weights and leaves no trace."""

import pytest
import torch
from tiny_models import randomise, tiny_model

from spoutnik.engine.generator import Engine
from spoutnik.engine.prepacked import PackedLinears, gains
from spoutnik.engine.request import Request
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
PROMPT = TOKENIZER.encode("the cat sat on the mat")
REQUESTS = [Request([*PROMPT, 5 + index], 8, seed=index) for index in range(3)]
every_family = pytest.mark.parametrize("family", ["deepseek-v3", "llama-3", "llama-bias"])


def model(family="llama-3", dtype=torch.bfloat16):
    made = tiny_model(family, vocab_size=TOKENIZER.vocab_size, max_position_embeddings=96)
    randomise(made, std=0.12)
    return made.to(dtype).eval()


def engine(made):
    return Engine(made, TOKENIZER, 4, None, TorchRunner(made, 4, 96))


def patched(made):
    return [name for name, module in made.named_modules() if "forward" in module.__dict__]


needs_packing = pytest.mark.skipif(not gains(model()), reason="torch packs no bfloat16 here")


@needs_packing
@every_family
@torch.no_grad()
def test_packed_linears_compute_what_the_plain_ones_do(family):
    made, ids = model(family), torch.tensor([PROMPT])
    expected = made(ids)
    packed = PackedLinears(made)
    packed.pack()
    with packed:
        assert {"lm_head", "model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"} <= set(patched(made))
        assert torch.allclose(made(ids), expected, rtol=0.02, atol=0.02 * float(expected.std()))
    assert patched(made) == []


@needs_packing
def test_decoding_reads_the_packed_weights():
    """Seen by spoiling the others while a request runs."""
    expected, made = engine(model()).generate(REQUESTS[:1]), model()
    running = engine(made)
    running.add(REQUESTS[0])
    events = running.step()
    with torch.no_grad():
        made.model.layers[0].mlp.down_proj.weight.zero_()
    while running.busy:
        events += running.step()
    assert [event.completion for event in events if event.completion] == expected


@needs_packing
@every_family
def test_changed_weights_are_packed_again(family):
    made, other = model(family), model(family)
    running = engine(made)
    before = running.generate(REQUESTS)
    with torch.no_grad():
        for parameter in (*made.parameters(), *other.parameters()):
            parameter.mul_(1.1)
    after = running.generate(REQUESTS)
    assert after == engine(other).generate(REQUESTS)
    assert [each.logprobs for each in after] != [each.logprobs for each in before]


@needs_packing
def test_a_refresh_packs_what_torch_does_not_count():
    made = model()
    running = engine(made)
    before = running.generate(REQUESTS)
    made.model.layers[0].mlp.down_proj.weight.data[:, 1] *= 2
    running.refresh()
    after = running.generate(REQUESTS)
    assert [each.logprobs for each in after] != [each.logprobs for each in before]
    assert after == engine(made).generate(REQUESTS)


@needs_packing
def test_the_model_is_as_it_was_after_a_step_that_failed():
    made = model()
    running = engine(made)
    with torch.no_grad():
        made.model.norm.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        running.generate(REQUESTS)
    assert patched(made) == []
    made(torch.tensor([PROMPT])).sum().backward()
    assert made.lm_head.weight.grad is not None


def test_a_model_that_becomes_float32_is_read_as_it_is():
    made = model()
    running = engine(made)
    running.generate(REQUESTS)
    made.to(torch.float32)
    assert running.generate(REQUESTS) == engine(model().to(torch.float32)).generate(REQUESTS)
    assert running.runner._packed._forwards == {}
