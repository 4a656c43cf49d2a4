"""Multi-token prediction: one extra decoder layer that guesses the token after the next one (DeepSeek-V3, section 2.2).

Deviation from the paper's text, as in every released checkpoint: equation 21 writes [hidden; embedding], where `eh_proj` takes
[embedding; hidden].
"""

import torch
from torch import Tensor, nn

from spoutnik.model.attention import Cache, Span
from spoutnik.model.block import DecoderLayer
from spoutnik.model.config import ModelConfig
from spoutnik.model.layers import RMSNorm
from spoutnik.model.moe import Routing


class SharedHead(nn.Module):
    """The module's own norm before the output head, which it shares with the main model."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class MTPLayer(DecoderLayer):
    """A decoder layer over eh_proj([enorm(embedding of t+1); hnorm(hidden at t)]). Embedding and head are the main model's."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__(config, layer)
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.shared_head = SharedHead(config)

    def predict(self, hidden_BTD: Tensor, embedding_BTD: Tensor, span: Span, cache: Cache | None, routing: Routing | None) -> Tensor:
        """Hidden states from which the head reads token t + 2, given final hidden states at t and embeddings of tokens t + 1."""
        x_BTD = self.eh_proj(torch.cat((self.enorm(embedding_BTD), self.hnorm(hidden_BTD)), dim=-1))
        return self.shared_head.norm(self(x_BTD, span, cache, routing))
