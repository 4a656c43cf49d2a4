"""How long each stage of a recipe takes on this machine: what it computes (`work.py`), at the speeds that were probed (`probe.py`), times a
few factors that were fitted to stages that ran (`laptop.toml`).

A term is the time that a piece of work would take at the probe's speed alone: bytes over bandwidth, operations over the speed of products.
Its factor says how much longer such work takes in our code. What is mostly the calling of small operations is counted in probed steps of a
small model. Factors were fitted on one machine; that they hold on another is an assumption that `--against` tests.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from spoutnik.errors import Phrase
from spoutnik.model.config import ModelConfig
from spoutnik.model.depth import depth_config
from spoutnik.model.flops import forward_flops, mtp_parameters, parameters, training_flops
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.probe import Probe
from spoutnik.plan.taken import Taken
from spoutnik.plan.uncertain import Number, Range, Uncertain, fixed, lognormal, triangular
from spoutnik.plan.work import Answers, Length, Part, Readings, StageWork, Updates, Writing

OPTIMISER_BYTES = 28
"""Moved for each parameter by AdamW: weight, gradient and two moments read, all but the gradient written, in float32."""
NARROW = 512
"""Models of a smaller width multiply at the speed of small products."""
WIDTHS = {"float32": 4, "bfloat16": 2}
NEWTON_SCHULZ = 5
PROBED, PROBED_TOKENS = depth_config("deepseek_v3", 2, 512).with_(num_nextn_predict_layers=0), 6 * 191
"""The probe's small step."""
FORWARD = 3
"""Of forward and backward, forward is about a third."""
READ_TOKENS = 4096
"""That are read at once without learning."""
SETUP = ("stage", "models", "open", "write", "growth")
"""Terms of a stage's beginning and end."""
SAVE_EVERY_S = 60.0
"""Seconds between saved states unless a run is told otherwise."""
AS_TAUGHT = (0.7, 1.0, 1.5)
"""Assumed: least, likeliest and most of an answer's length over that of the worked traces that its model has learned."""
Terms = dict[str, Number]


@dataclass(frozen=True)
class Shares:
    """What is not known beforehand: an answer's share of the longest one, and the groups' share that has a signal."""

    answer: Number
    signal: Number


def terms(work: StageWork, probe: Probe, shares: Shares) -> Terms:
    """Seconds of each kind of work in a stage at the probe's speeds, before their factors: SETUP, and what its parts compute.

    States that are saved on the way are not in it. `growth`: memory is given out by the system page by page when it is first touched.
    """
    found: Terms = {
        "stage": probe.small_step,
        "models": work.models * probe.small_step,
        "open": work.opened / probe.disk_read,
        "write": (work.made + work.saved) / probe.disk_write,
        "growth": (work.opened + work.made + work.saved if work.memory is None else work.memory) / probe.bandwidth,
    }
    for part in work.parts:
        for name, seconds in _part_terms(part, probe, shares).items():
            found[name] = found.get(name, 0.0) + seconds
    return found


def _part_terms(part: Part, probe: Probe, shares: Shares) -> Terms:
    match part:
        case Updates():
            return _update_terms(part, probe, shares)
        case Answers():
            return _answer_terms(part, probe, shares)
        case Readings():
            return _reading_terms(part, probe, shares)
        case Writing():
            return {
                "tokenizer": part.documents * 1e-2 * probe.small_step,
                "corpus": part.corpus_tokens * 1e-4 * probe.small_step,
                "traces": part.traces * 1e-2 * probe.small_step,
            }


def _update_terms(part: Updates, probe: Probe, shares: Shares) -> Terms:
    mean = part.length.mean(shares.answer)
    rows = part.rows * (shares.signal if part.chosen else 1.0)
    tokens = part.steps * rows * mean
    chunks = part.steps * (1.0 + rows * mean / part.cells if part.cells else 1.0)
    found = _pass_terms(part.config, tokens, mean, chunks, part.dtype, probe, part.pretrains)
    found["update weights"] = part.steps * parameters(part.config).total * OPTIMISER_BYTES / probe.bandwidth
    if part.muon:
        side = part.config.hidden_size / (2 if part.config.is_latent else 1)
        held = parameters(part.config).total + mtp_parameters(part.config).total
        found["muon"] = part.steps * NEWTON_SCHULZ * 6.0 * held * side / _products(part.config, "float32", probe)
    for other in part.beside:
        for name, seconds in _pass_terms(other, tokens, mean, chunks, part.dtype, probe).items():
            found[name] = found.get(name, 0.0) + seconds / FORWARD
    return found


def _pass_terms(
    config: ModelConfig, tokens: Number, mean: Number, chunks: Number, dtype: str, probe: Probe, pretrains: bool = False
) -> Terms:
    """Forward and backward through the modules: products, what is written between them, and the calling of operations, which are as many
    for each layer and each part of a batch however small that is."""
    config = config.with_(sliding_window=None, num_nextn_predict_layers=config.num_nextn_predict_layers if pretrains else 0)
    layers = config.num_hidden_layers + config.num_nextn_predict_layers
    element = probe.small_step / (PROBED_TOKENS * (elements(PROBED, 191.0) + routed_elements(PROBED)))
    return {
        "update calls": chunks * layers * 1e-1 * probe.small_step,
        f"update products {dtype}": _operations(training_flops, config, tokens, mean) / _products(config, dtype, probe),
        "update elements": tokens * elements(config, mean) * element,
        "update routed elements": tokens * routed_elements(config) * element,
    }


def _answer_terms(part: Answers, probe: Probe, shares: Shares) -> Terms:
    config = part.config.with_(sliding_window=None)
    drawn = sum(((1.0 - shares.signal) ** again for again in range(1, part.redrawn)), 1.0)
    answer = part.length.longest * shares.answer
    mean, count = part.length.fixed + answer, part.rounds * part.count * drawn
    waves = max(part.count / part.batch, 1.0) - 1.0
    decoded = part.rounds * drawn * (part.length.longest + waves * answer)  # in each round one answer is about the longest
    return {
        "decode calls": decoded * config.num_hidden_layers * 1e-3 * probe.small_step,
        "decode weights": decoded * parameters(config).active * WIDTHS[part.dtype] / probe.bandwidth,
        f"decode products {part.dtype}": _operations(forward_flops, config, count * mean, mean / 2) / _products(config, part.dtype, probe),
        "answers": count * 1e-3 * probe.small_step,
        "packing": part.rounds * parameters(config).total * 4 / probe.bandwidth,
    }


def _reading_terms(part: Readings, probe: Probe, shares: Shares) -> Terms:
    mean = part.length.mean(shares.answer)
    tokens = part.rows * mean * (shares.signal if part.chosen else 1.0)
    if part.by_modules:
        found = _pass_terms(part.config, tokens, mean, tokens / READ_TOKENS, part.dtype, probe)
        return {name: seconds / FORWARD for name, seconds in found.items()}
    config = part.config.with_(sliding_window=None)
    return {f"decode products {part.dtype}": _operations(forward_flops, config, tokens, mean / 2) / _products(config, part.dtype, probe)}


def _operations(count: Callable[[ModelConfig, float, float], float], config: ModelConfig, tokens: Number, keys: Number) -> Number:
    """What a function of `model.flops` counts: so much a token, and so much more for each key that it looks at."""
    alone = count(config, 1.0, 0.0)
    return tokens * (alone + (count(config, 1.0, 1.0) - alone) * keys)


def _products(config: ModelConfig, dtype: str, probe: Probe) -> float:
    """Operations a second of such a model's products."""
    if dtype == "bfloat16":
        return probe.gemm_bfloat16
    return probe.gemm_small if config.hidden_size < NARROW else probe.gemm_float32


def elements(config: ModelConfig, keys: Number) -> Number:
    """About how many numbers are written for one token on its way through a model whose attention looks at `keys` keys, padding and
    future ones included: rows of each layer, heads' queries, keys, values and scores, inner rows of what is dense, logits."""
    layers = config.num_hidden_layers + config.num_nextn_predict_layers
    dense = sum(not config.layer_has_experts(layer) for layer in range(layers))
    if config.is_latent:
        heads = config.num_attention_heads * (2 * (config.qk_nope_head_dim + config.qk_rope_head_dim) + config.v_head_dim)
    else:
        heads = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    inner = dense * config.intermediate_size + (layers - dense) * config.moe_intermediate_size * config.n_shared_experts
    logits = config.vocab_size * (1 + config.num_nextn_predict_layers)
    rows = layers * (8 * config.hidden_size + 3 * heads) + 5 * inner + 4 * logits
    return float(rows) + 2.0 * layers * config.num_attention_heads * keys


def routed_elements(config: ModelConfig) -> float:
    """The like for what goes to routed experts and back, and their inner rows."""
    layers = range(config.num_hidden_layers + config.num_nextn_predict_layers)
    expert = sum(map(config.layer_has_experts, layers))
    return float(expert * config.num_experts_per_tok * (6 * config.hidden_size + 5 * config.moe_intermediate_size))


def as_it_was(work: StageWork, took: Taken) -> tuple[StageWork, Shares]:
    """A finished stage's work with the length that its examples turned out to have, and the shares that it had."""
    answer = took.answer
    parts: list[Part] = []
    for part in work.parts:
        if isinstance(part, Updates) and took.example is not None:
            parts.append(replace(part, length=Length(took.example)))
        else:
            parts.append(part)
    return replace(work, parts=tuple(parts)), Shares(answer if answer is not None else 0.0, took.signal if took.signal is not None else 1.0)


@dataclass(frozen=True)
class Factors:
    """What was fitted: `terms` by name, and `pace`, how a stage's time is spread around its prediction (10th, 50th, 90th percentile; 1 is
    the prediction). `answer` and `signal` are the least, the likeliest and the most of the shares before anything is known of them;
    A process holds `base_memory` bytes before it opens a model, and then `tensors` times what its tensors take."""

    date: str
    made: str
    terms: Mapping[str, float]
    pace: tuple[float, float, float]
    answer: tuple[float, float, float]
    signal: tuple[float, float, float]
    base_memory: float
    tensors: float


@cache
def fitted() -> Factors:
    """The factors that come with Spoutnik; `benchmarks/laptop.py` makes them anew."""
    content: dict[str, Any] = tomllib.loads(files("spoutnik.plan").joinpath("laptop.toml").read_text(encoding="utf-8"))
    spreads = {name: tuple(content.pop(name)) for name in ("pace", "answer", "signal")}
    return Factors(**content, **spreads)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Predicted:
    """A stage's seconds, None where they cannot be predicted, and bytes at its fullest moment, None where no model is opened."""

    work: StageWork
    seconds: Figure | None
    memory: float | None

    @property
    def range(self) -> Range | None:
        """Seconds."""
        return samples(self.seconds.value).range() if self.seconds is not None else None


def predict(work: StageWork, probe: Probe, factors: Factors, shares: Shares | None = None) -> Predicted:
    """What a stage takes here. With `shares` that are known only the machine's pace is uncertain; else they are drawn, for each stage."""
    memory = factors.base_memory + factors.tensors * work.memory if work.memory is not None else None
    if work.unknown:
        return Predicted(work, None, memory)
    shares = shares or usual_shares(work, factors)
    parts: dict[str, Number] = {name: factors.terms.get(name, 1.0) * value for name, value in terms(work, probe, shares).items()}
    saving = factors.terms.get("write", 1.0) * work.saved / probe.disk_write
    working = sum(parts.values(), 0.0) * lognormal(*factors.pace, name="laptop pace")
    parts["saving states"] = working * (saving / SAVE_EVERY_S)
    inputs = tuple(
        Input(name, value, "s", _fitted_source(name, factors), "computed")
        for name, value in parts.items()
        if isinstance(value, Uncertain) or value > 0
    )
    formula = "the parts' sum at the machine's pace, with a state saved once a minute"
    return Predicted(work, Figure(work.name, working + parts["saving states"], "s", formula, inputs), memory)


def _fitted_source(name: str, factors: Factors) -> Phrase:
    factor = factors.terms.get(name, 1.0)
    return Phrase("{factor:.3g} x its time at the probed speed, fitted {date}", factor=factor, date=factors.date)


def usual_shares(work: StageWork, factors: Factors) -> Shares:
    """Shares before anything was measured, drawn for each stage by itself. Answers of a model that was taught how to answer are taken to be
    about as long as what it was taught."""
    answer = factors.answer if work.share is None else tuple(min(work.share * times, 1.0) for times in AS_TAUGHT)
    return Shares(triangular(*answer, name=f"answers of {work.name}"), triangular(*factors.signal, name=f"signal of {work.name}"))


def total(predicted: Iterable[Predicted]) -> Uncertain:
    """Seconds of all stages whose time can be predicted."""
    return sum((samples(stage.seconds.value) for stage in predicted if stage.seconds is not None), fixed(0.0))


def samples(value: Number) -> Uncertain:
    """A value as a distribution."""
    return value if isinstance(value, Uncertain) else fixed(value)
