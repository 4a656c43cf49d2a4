"""A model's architecture written as a program of the native engine. Kernels know sizes; what follows what is said here.

Letters as in model/attention.py: N and R channels of a head without and with rotary position, V of a value, C of the latent, D hidden.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spoutnik.engine.kernels.native import Ending, Kind, NativeEngine, Router, Space
from spoutnik.engine.kernels.operations import Factors, Matrix, Program, Site
from spoutnik.model.attention import GroupedQueryAttention, MultiHeadLatentAttention
from spoutnik.model.block import DecoderLayer
from spoutnik.model.layers import MLP, RMSNorm
from spoutnik.model.moe import MoE
from spoutnik.model.mtp import MTPLayer
from spoutnik.model.rope import embedding_scale, frequencies, rotation
from spoutnik.model.transformer import CausalLM

LANES = 16
"""Outputs of a panel."""


def write_program(
    model: CausalLM, engine: NativeEngine, precision: str, most_rows: int, most_picked: int, most_tokens: int, drafts: bool = False
) -> Program:
    """Packs the model's weights in `precision` and programs the engine for steps of so many rows, over contexts of `most_tokens`.

    With `drafts`, the first multi-token prediction layer comes too; see `_further_token`.
    """
    config, program = model.config, Program(engine, precision)
    hidden = program.buffer("hidden", config.hidden_size)
    in_bf16 = model.model.embed_tokens.weight.dtype == torch.bfloat16
    table = program.constant(lambda: model.model.embed_tokens.weight if in_bf16 else model.model.embed_tokens.weight.float())
    embed: dict[str, Any] = {"constant": table, "width": config.hidden_size, "flag": int(in_bf16)}
    program.add(Kind.EMBED, to=hidden, **embed)
    cos, sin = rotation(torch.arange(most_tokens)[None], frequencies(config), embedding_scale(config))
    both = torch.stack([cos.squeeze(2)[0], sin.squeeze(2)[0]], dim=1).float()
    angles = program.constant(lambda: both)
    for index, layer in enumerate(model.model.layers[: config.num_hidden_layers]):
        assert isinstance(layer, DecoderLayer)
        _layer(program, layer, index, "hidden", angles, config.sliding_window or 0)
    head = program.weight(lambda: (model.lm_head.weight, None), "int8" if precision == "int4" else precision)
    _logits(program, "hidden", model.model.norm, model, head)
    main = range(len(program.operations))
    if drafts:
        _further_token(program, model, embed, angles, head)
    engine.program(
        program.operations, list(program.buffers.values()), program.packed_width, most_rows, most_picked, most_tokens,
        config.num_attention_heads, config.vocab_size, main,
    )  # fmt: skip
    return program


def _layer(program: Program, layer: DecoderLayer, index: int, stream: str, angles: int, window: int, passed: int = 0) -> None:
    """A decoder layer upon the residual stream in a buffer. Its keys are the cache's `index`-th; the first `passed` are never seen."""
    attention, hidden = layer.self_attn, program.buffer(stream, 0)
    normed = _norm(program, stream, layer.input_layernorm)
    if isinstance(attention, MultiHeadLatentAttention):
        _latent_attention(program, attention, index, normed, hidden, angles, passed)
    else:
        _grouped_attention(program, attention, index, normed, hidden, angles, window, passed)
    normed = _norm(program, stream, layer.post_attention_layernorm)
    if isinstance(layer.mlp, MoE):
        _mixture(program, layer.mlp, normed, hidden)
    else:
        program.pack(Kind.PACK, normed, layer.mlp.gate_proj.in_features)
        _feed_forward(program, layer.mlp, normed, hidden)


def _logits(program: Program, stream: str, norm: RMSNorm, model: CausalLM, head: int) -> None:
    width, precision = model.config.hidden_size, "int8" if program.precision == "int4" else program.precision
    picked = program.buffer("picked", width, Space.PICKED)
    program.add(Kind.PICK, Space.PICKED, from_=program.buffer(stream, 0), to=picked, width=width)
    _norm(program, "picked", norm, to="picked", space=Space.PICKED)
    program.pack(Kind.PACK, picked, width, precision, Space.PICKED)
    program.add(Kind.LINEAR, Space.PICKED, to=program.buffer("logits", model.config.vocab_size, Space.PICKED), weight=head)


def _further_token(program: Program, model: CausalLM, embed: dict[str, Any], angles: int, head: int) -> None:
    """Multi-token prediction (model/mtp.py), depth 1: the tokens are those after the rows of the call before that CARRY names.

    A row stands at its token's position, one behind that of its hidden state: so what a page holds depends on its own tokens and
    those before it. Nothing precedes the first token, whose place is passed over. Rotary positions count from there, too; only their
    differences matter.
    """
    config, size = model.config, model.config.hidden_size
    layer = model.model.layers[config.num_hidden_layers]
    assert isinstance(layer, MTPLayer)
    begin = len(program.operations)
    pair, further = program.buffer("embedding_and_hidden", 2 * size), program.buffer("further", size)
    program.add(Kind.EMBED, to=pair, **embed)
    program.add(Kind.CARRY, from_=program.buffer("hidden", size), to=pair, to_offset=size, width=size)
    for norm, offset in ((layer.enorm, 0), (model.model.norm, size), (layer.hnorm, size)):
        _norm_part(program, pair, offset, norm, size)
    program.pack(Kind.PACK, pair, 2 * size)
    _linear(program, pair, further, [layer.eh_proj])
    _layer(program, layer, config.num_hidden_layers, "further", angles, config.sliding_window or 0, passed=1)
    kinds = [operation.kind for operation in program.operations]
    program.entries = range(begin, kinds.index(Kind.REMEMBER, begin) + 1)
    _logits(program, "further", layer.shared_head.norm, model, head)
    program.drafts = range(begin, len(program.operations))


def cache_shape(model: CausalLM) -> tuple[int, int, int]:
    """(key heads, channels of a key, channels of a value) of the native cache."""
    config = model.config
    if config.is_latent:
        return 1, config.kv_lora_rank + config.qk_rope_head_dim, config.kv_lora_rank
    return config.num_key_value_heads, config.head_dim, config.head_dim


def unsupported(model: CausalLM, precision: str) -> str | None:
    """Why the kernels cannot run this model, or None."""
    _, key, _ = cache_shape(model)
    if key % 2 and precision != "float32":
        return f"its keys have {key} channels, and the kernels pair them"
    return None


def _norm(program: Program, source: str, norm: RMSNorm, to: str = "normed", space: Space = Space.TOKENS) -> int:
    width = program.buffers[source][0]
    target = program.buffer(to, width, space)
    program.add(
        Kind.NORM, space, from_=program.buffer(source, 0, space), to=target, width=width,
        constant=program.constant(lambda: norm.weight.float()), number=norm.eps,
    )  # fmt: skip
    return target


def _norm_part(program: Program, buffer: int, offset: int, norm: RMSNorm, width: int) -> None:
    """Norms some columns of a buffer in place."""
    program.add(
        Kind.NORM, from_=buffer, from_offset=offset, to=buffer, to_offset=offset, width=width,
        constant=program.constant(lambda: norm.weight.float()), number=norm.eps,
    )  # fmt: skip


def _linear(program: Program, source_buffer: int, to: int, matrices: list[nn.Linear], **fields: Any) -> None:
    """One product for layers that read the same input (what was packed, from `source_buffer`), their outputs side by side."""

    def source() -> Matrix:
        bias = None
        if any(matrix.bias is not None for matrix in matrices):
            bias = torch.cat([torch.zeros(matrix.out_features) if matrix.bias is None else matrix.bias.float() for matrix in matrices])
        return torch.cat([matrix.weight for matrix in matrices]), bias

    program.add(
        Kind.LINEAR, from_=source_buffer, to=to, weight=program.weight(source), constant=program.site(Site(matrices)), **fields
    )  # fmt: skip


def _grouped_attention(
    program: Program, attention: GroupedQueryAttention, layer: int, normed: int, hidden: int, angles: int, window: int, passed: int
) -> None:
    size = attention.head_dim
    queries, keys = attention.q_proj.out_features // size, attention.k_proj.out_features // size
    qkv = program.buffer("qkv", (queries + 2 * keys) * size)
    program.pack(Kind.PACK, normed, attention.q_proj.in_features)
    _linear(program, normed, qkv, [attention.q_proj, attention.k_proj, attention.v_proj])
    program.add(Kind.ROTATE, from_=qkv, from_stride=size, to=qkv, to_stride=size, width=size, heads=queries + keys, constant=angles)
    program.add(
        Kind.REMEMBER, from_=qkv, from_offset=queries * size, from_stride=size, to=qkv, to_offset=(queries + keys) * size, to_stride=size,
        layer=layer,
    )  # fmt: skip
    attended = program.buffer("attended", queries * size)
    program.add(Kind.ATTEND, from_=qkv, to=attended, layer=layer, flag=window, width=passed, number=attention.scale)
    program.pack(Kind.PACK, attended, queries * size)
    _linear(program, attended, hidden, [attention.o_proj], flag=Ending.ADD)


def _latent_attention(
    program: Program, attention: MultiHeadLatentAttention, layer: int, normed: int, hidden: int, angles: int, passed: int
) -> None:
    """The absorbed form, always: whatever the chunk, a token's result is the same to the bit."""
    heads, latent = attention.num_heads, attention.kv_lora_rank
    nope, rope, value = attention.nope, attention.rope, attention.value
    compressed = program.buffer("compressed", latent + rope)
    query = program.buffer("query", heads * (nope + rope))
    program.pack(Kind.PACK, normed, attention.kv_a_proj_with_mqa.in_features)
    _linear(program, normed, compressed, [attention.kv_a_proj_with_mqa])
    if hasattr(attention, "q_a_proj"):
        rank = attention.q_a_proj.out_features
        low = program.buffer("low_rank_query", rank)
        _linear(program, normed, low, [attention.q_a_proj])
        _norm_part(program, low, 0, attention.q_a_layernorm, rank)
        program.pack(Kind.PACK, low, rank)
        _linear(program, low, query, [attention.q_b_proj])
    else:
        _linear(program, normed, query, [attention.q_proj])
    _norm_part(program, compressed, 0, attention.kv_a_layernorm, latent)
    rotate: dict[str, Any] = {"width": rope, "constant": angles, "flag": 1}
    program.add(Kind.ROTATE, from_=compressed, from_offset=latent, to=compressed, to_offset=latent, **rotate)
    absorbed = program.buffer("absorbed_query", heads * (latent + rope))
    program.add(
        Kind.ROTATE, from_=query, from_offset=nope, from_stride=nope + rope, to=absorbed, to_offset=latent, to_stride=latent + rope,
        heads=heads, **rotate,
    )  # fmt: skip
    program.add(Kind.REMEMBER, from_=compressed, to=compressed, layer=layer)

    def rebuild_HxC() -> Tensor:
        return attention.kv_b_proj.weight.unflatten(0, (heads, nope + value))

    def of_keys(head: int) -> Callable[[Tensor, Tensor], Factors]:
        return lambda down, up: (up.unflatten(0, (heads, nope + value))[head, :nope].T, down.T)

    def of_values(head: int) -> Callable[[Tensor, Tensor], Factors]:
        return lambda down, up: (down, up.unflatten(0, (heads, nope + value))[head, nope:])

    program.pack(Kind.PACK, query, nope, heads=heads, from_stride=nope + rope)
    key_sites = [Site([attention.kv_b_proj], factors=of_keys(head)) for head in range(heads)]
    _heads(program, lambda: rebuild_HxC()[:, :nope].mT, key_sites, query, nope + rope, absorbed, latent + rope)
    context, values = program.buffer("context", heads * latent), program.buffer("attended", heads * value)
    program.add(Kind.ATTEND, from_=absorbed, to=context, layer=layer, width=passed, number=attention.scale)
    program.pack(Kind.PACK, context, latent, heads=heads, from_stride=latent)
    value_sites = [Site([attention.kv_b_proj], factors=of_values(head)) for head in range(heads)]
    _heads(program, lambda: rebuild_HxC()[:, nope:], value_sites, context, latent, values, value)
    program.pack(Kind.PACK, values, heads * value)
    _linear(program, values, hidden, [attention.o_proj], flag=Ending.ADD)


def _heads(
    program: Program, stack_HOI: Callable[[], Tensor], sites: list[Site], source: int, from_stride: int, to: int, to_stride: int
) -> None:
    """One product a head, each with its own matrix, site, segment of the input and output columns."""
    first = _stack(program, lambda head: stack_HOI()[head], len(sites))
    program.add(
        Kind.LINEAR, from_=source, from_stride=from_stride, to=to, to_stride=to_stride, heads=len(sites), weight=first,
        constant=program.site(*sites),
    )  # fmt: skip


def _stack(program: Program, matrix: Callable[[int], Tensor], count: int) -> int:
    """Packs `count` matrices as weights with consecutive numbers; returns the first."""

    def numbered(index: int) -> int:
        return program.weight(lambda: (matrix(index), None))

    return [numbered(index) for index in range(count)][0]  # noqa: RUF015  all are packed, not only the first


def _feed_forward(program: Program, mlp: MLP, normed: int, hidden: int) -> None:
    """A dense network, or a shared expert, from what is packed of `normed`; adds to the residual stream."""
    width = mlp.gate_proj.out_features
    inner = program.buffer("inner", -(-width // LANES) * LANES)
    gate, up = mlp.gate_proj, mlp.up_proj

    def source() -> Matrix:
        bias = None if gate.bias is None else in_turns(gate.bias, up.bias)
        return in_turns(gate.weight, up.weight), bias

    site = program.site(Site([gate, up], in_turns))
    program.add(Kind.LINEAR, from_=normed, to=inner, weight=program.weight(source), constant=site, flag=Ending.GATE)
    program.pack(Kind.PACK, inner, width)
    _linear(program, inner, hidden, [mlp.down_proj], flag=Ending.ADD)


def in_turns(gate_O: Tensor, up_O: Tensor) -> Tensor:
    """Rows of two matrices, or elements of two biases, in turns of 16, as a gated product wants; the last turn is padded with zeros."""
    zeros = gate_O.new_zeros(-len(gate_O) % LANES, *gate_O.shape[1:])
    turns = [torch.cat([part, zeros]).unflatten(0, (-1, LANES)) for part in (gate_O, up_O)]
    return torch.stack(turns, dim=1).flatten(0, 2)


def _mixture(program: Program, moe: MoE, normed: int, hidden: int) -> None:
    gate, experts = moe.gate, moe.experts
    count, size = gate.weight.shape
    width = experts.down_proj.shape[-1]
    scores = program.buffer("scores", count)
    program.pack(Kind.PACK, normed, size, "float32")
    program.add(Kind.LINEAR, to=scores, weight=program.weight(lambda: (gate.weight, None), "float32"))
    biased, open_groups = gate.topk_method == "noaux_tc", gate.n_group if gate.topk_method == "greedy" else gate.topk_group
    bias = program.constant(lambda: gate.e_score_correction_bias.float()) if biased else -1
    router = program.engine.router(
        Router(
            count, gate.n_group, open_groups, gate.top_k, biased, 2 if biased else 1, gate.norm_topk_prob, bias, gate.routed_scaling_factor
        )
    )
    program.add(Kind.ROUTE, from_=scores, flag=router)
    program.pack(Kind.SPREAD, normed, size)
    inner = program.buffer("expert_inner", -(-width // LANES) * LANES, Space.SLOTS)
    out = program.buffer("expert_out", size, Space.SLOTS)

    def gate_up(index: int) -> Tensor:
        return in_turns(*experts.gate_up_proj[index].chunk(2))

    first = _stack(program, gate_up, count)
    program.add(Kind.LINEAR, Space.SLOTS, to=inner, weight=first, heads=count, flag=Ending.GATE)
    program.pack(Kind.PACK, inner, width, space=Space.SLOTS)
    first = _stack(program, lambda index: experts.down_proj[index], count)
    program.add(Kind.LINEAR, Space.SLOTS, to=out, weight=first, heads=count)
    program.add(Kind.GATHER, from_=out, to=hidden, width=size)
    if hasattr(moe, "shared_experts"):
        program.pack(Kind.PACK, normed, size)
        _feed_forward(program, moe.shared_experts, normed, hidden)
