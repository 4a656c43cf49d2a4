"""A model that says what it is told to: for tests of everything around an answer."""

from itertools import pairwise

import torch

from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import CausalLM
from spoutnik.text.tokenizer import Tokenizer


def scripted_model(tokenizer: Tokenizer, script: str, max_position_embeddings: int = 256) -> CausalLM:
    """After a line feed it writes `script`, whose tokens must all differ, then ends; a script that ends in a line feed begins again.

    Every weight between embedding and head is zero, a token's embedding is a unit vector, and the head maps it to the token that follows.
    """
    ids = tokenizer.encode(script)
    chain = [*tokenizer.encode("\n"), *ids, *([] if script.endswith("\n") else [tokenizer.eos_token_id])]
    assert len(set(ids)) == len(ids), f"a token occurs twice in {[tokenizer.decode([token]) for token in ids]}"
    size = -(-tokenizer.vocab_size // 64) * 64
    model = CausalLM(
        ModelConfig(
            "llama", vocab_size=tokenizer.vocab_size, hidden_size=size, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
            num_key_value_heads=1, head_dim=64, rms_norm_eps=1e-5, rope_theta=1e4, max_position_embeddings=max_position_embeddings,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight.fill_diagonal_(1.0)
        for token, following in pairwise(chain):
            model.lm_head.weight[following, token] = 4.0
    return model
