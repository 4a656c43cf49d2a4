"""The whole model: embedding, decoder layers, norm, head. Parameter names are Hugging Face's.

Multi-token prediction layers follow the main ones in `model.layers`, as in DeepSeek's checkpoints, and run only when asked for.
"""

from typing import cast

import torch
from torch import Tensor, nn

from spoutnik.model.attention import Cache, Span
from spoutnik.model.block import DecoderLayer
from spoutnik.model.config import ModelConfig
from spoutnik.model.layers import RMSNorm
from spoutnik.model.moe import Routing
from spoutnik.model.mtp import MTPLayer
from spoutnik.model.rope import embedding_scale, frequencies, rotation


class Decoder(nn.Module):
    """Embedding, layers and final norm, under the name that checkpoints give them: `model`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        # Given its weights, torch draws none for it: on the device "meta" drawing would import torch's compiler, most of a second's work.
        self.embed_tokens = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.hidden_size), freeze=False)
        main = config.num_hidden_layers
        self.layers = nn.ModuleList(
            [DecoderLayer(config, layer) for layer in range(main)]
            + [MTPLayer(config, layer) for layer in range(main, main + config.num_nextn_predict_layers)]
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class CausalLM(nn.Module):
    """A causal language model of any family in `config.py`. Parameters are uninitialised: see `init.py` or load a checkpoint."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        # A plain attribute, not a buffer: float32 whatever dtype the model is cast to, and recomputed rather than saved.
        self._frequencies_F = frequencies(config)

    def forward(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None, cache: Cache | None = None, routing: Routing | None = None
    ) -> Tensor:
        """Logits [B, T, vocab_size], float32 at least, for token ids [B, T]. See `hidden` for the arguments."""
        return self.head(self.hidden(ids_BT, positions_BT, cache, routing))

    def hidden(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None, cache: Cache | None = None, routing: Routing | None = None
    ) -> Tensor:
        """Hidden states [B, T, D] after the final norm.

        Without a cache, positions count from 0 and attention is causal, so rows padded on the right need no mask. With one,
        `positions_BT` (int64) says where each token stands in its row, and keys at later positions are never seen.
        """
        span = self._span(ids_BT, positions_BT, cache)
        x_BTD = self.model.embed_tokens(ids_BT)
        for layer in self.model.layers[: self.config.num_hidden_layers]:
            x_BTD = layer(x_BTD, span, cache, routing)
        return self.model.norm(x_BTD)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab_size] of hidden states [..., D], float32 at least."""
        logits = self.lm_head(hidden)
        return logits if logits.dtype == torch.float64 else logits.float()

    def predict_further(
        self, hidden_BTD: Tensor, next_ids_BT: Tensor, positions_BT: Tensor | None = None, cache: Cache | None = None,
        routing: Routing | None = None, depth: int = 0,
    ) -> Tensor:  # fmt: skip
        """Hidden states from which `head` reads token t + 2 + depth, by multi-token prediction layer `depth`.

        `hidden_BTD` comes from `hidden` (or from the layer before), `next_ids_BT` holds tokens t + 1 + depth.
        """
        layer = cast(MTPLayer, self.model.layers[self.config.num_hidden_layers + depth])
        span = self._span(next_ids_BT, positions_BT, cache)
        return layer.predict(hidden_BTD, self.model.embed_tokens(next_ids_BT), span, cache, routing)

    def _span(self, ids_BT: Tensor, positions_BT: Tensor | None, cache: Cache | None) -> Span:
        device, tokens, window = ids_BT.device, ids_BT.shape[1], self.config.sliding_window
        if positions_BT is None:
            positions_BT = torch.arange(tokens, device=device)[None]
        cos, sin = rotation(positions_BT, self._frequencies_F.to(device), embedding_scale(self.config))
        wide = self.model.embed_tokens.weight.dtype == torch.float64
        cos, sin = (cos.double(), sin.double()) if wide else (cos, sin)
        if cache is None and (window is None or tokens <= window):
            return Span(cos, sin, None)
        keys = tokens if cache is None else cache.length
        key_S = torch.arange(keys, device=device)
        # Without a cache a key's place is its index, wherever the rows' positions begin.
        query_BT1 = (key_S[None] if cache is None else positions_BT)[:, :, None]
        mask_BTS = key_S <= query_BT1
        if window is not None:
            mask_BTS &= key_S > query_BT1 - window
        return Span(cos, sin, mask_BTS[:, None])
