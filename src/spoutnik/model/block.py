"""One decoder layer: attention and feed-forward network, each behind a norm and added to the residual stream."""

from torch import Tensor, nn

from spoutnik.model.attention import Cache, GroupedQueryAttention, MultiHeadLatentAttention, Span
from spoutnik.model.config import ModelConfig
from spoutnik.model.layers import MLP, RMSNorm
from spoutnik.model.moe import MoE, Routing


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)); the network is dense or a mixture of experts, as the configuration says."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        attention = MultiHeadLatentAttention if config.is_latent else GroupedQueryAttention
        self.self_attn = attention(config, layer)
        if config.layer_has_experts(layer):
            self.mlp: MoE | MLP = MoE(config, layer)
        else:
            self.mlp = MLP(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_BTD: Tensor, span: Span, cache: Cache | None, routing: Routing | None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), span, cache)
        normed_BTD = self.post_attention_layernorm(x_BTD)
        return x_BTD + (self.mlp(normed_BTD, routing) if isinstance(self.mlp, MoE) else self.mlp(normed_BTD))
