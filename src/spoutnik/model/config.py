"""What a model is made of: one dataclass with Hugging Face's names, read from and written to `config.json`.

Families: `deepseek_v3` and `deepseek_v2` (latent attention, mixture of experts), `llama` (also SmolLM2), `mistral`, `qwen2` (dense).
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from spoutnik.errors import Phrase, UserError

ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
LATENT = ("deepseek_v3", "deepseek_v2")
ROPE_NEEDS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
TOPK_METHODS = {"deepseek_v3": ("noaux_tc",), "deepseek_v2": ("greedy", "group_limited_greedy")}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one model. Fields of the families that do not use them stay at their defaults and are not written out."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 0
    """Width of one head in dense families; 0 means hidden_size / num_attention_heads."""
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    """Bias on the query, key and value projections (Qwen2: always). Llama's also puts one on the output projection."""
    mlp_bias: bool = False
    sliding_window: int | None = None
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    # latent attention (DeepSeek-V2, section 2.1; V3, section 2.1.1)
    q_lora_rank: int | None = None
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    # mixture of experts (DeepSeek-V3, section 2.1.2)
    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    first_k_dense_replace: int = 0
    n_group: int = 1
    topk_group: int = 1
    topk_method: str = "noaux_tc"
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    # multi-token prediction (DeepSeek-V3, section 2.2)
    num_nextn_predict_layers: int = 0

    def __post_init__(self) -> None:
        if self.model_type not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UserError(
                "model_type {found!r} is not one that Spoutnik knows; it must be one of {known}.", found=self.model_type, known=known
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                self._need(field.name, type(value) is int and value >= 0, "it must be a whole number, not negative")
            if field.type is float:
                self._need(field.name, type(value) in (int, float) and value > 0, "it must be a positive number")
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
            self._need(name, getattr(self, name) > 0, "it must be positive")
        window = self.sliding_window
        self._need("sliding_window", window is None or window > 0, "it must be positive, or null for none")
        self._require(not self.mlp_bias or self.model_type == "llama", "mlp_bias is part of the llama family alone")
        self._check_rope()
        if self.model_type == "qwen2":
            object.__setattr__(self, "attention_bias", True)
        self._require(not self.attention_bias or self.model_type in ("llama", "qwen2"), "attention_bias is not part of this family")
        if self.is_latent:
            self._check_latent()
        else:
            if not self.head_dim:
                self._require(self.hidden_size % self.num_attention_heads == 0, "hidden_size must be a multiple of num_attention_heads")
                object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
            self._need("head_dim", self.head_dim % 2 == 0, "rotary embedding needs an even number")
            heads, shared = self.num_attention_heads, self.num_key_value_heads
            self._require(
                heads % shared == 0, "{heads} query heads cannot share {shared} key-value heads evenly", heads=heads, shared=shared
            )

    def _check_rope(self) -> None:
        if self.rope_scaling is None:
            return
        rope_type = self.rope_scaling.get("rope_type")
        known = ", ".join(ROPE_NEEDS)
        self._require(rope_type in ROPE_NEEDS, "rope type {found!r} is unknown; it must be one of {known}", found=rope_type, known=known)
        for name in ROPE_NEEDS[str(rope_type)]:
            value = self.rope_scaling.get(name)
            positive = isinstance(value, (int, float)) and value > 0
            self._require(
                positive, "rope_scaling.{name} is {value!r}; rope type {rope_type!r} needs a positive number",
                name=name, value=value, rope_type=rope_type,
            )  # fmt: skip

    def _check_latent(self) -> None:
        for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            self._need(name, getattr(self, name) > 0, "latent attention needs a positive number")
        self._need("qk_rope_head_dim", self.qk_rope_head_dim % 2 == 0, "rotary pairs need an even number")
        self._require(self.num_key_value_heads == self.num_attention_heads, "latent attention has as many key-value heads as heads")
        if not self.n_routed_experts:
            dense = self.first_k_dense_replace >= self.num_hidden_layers
            self._require(dense, "with no routed experts, first_k_dense_replace must cover all num_hidden_layers")
            return
        for name in ("num_experts_per_tok", "moe_intermediate_size", "n_group", "topk_group"):
            self._need(name, getattr(self, name) > 0, "routed experts need a positive number")
        methods = TOPK_METHODS[self.model_type]
        self._need("topk_method", self.topk_method in methods, "it must be one of {known}", known=", ".join(methods))
        if self.model_type == "deepseek_v2":
            self._require(not self.norm_topk_prob, "norm_topk_prob is set, but this family's weights are never normalised")
        experts, groups = self.n_routed_experts, self.n_group
        self._require(experts % groups == 0, "{experts} experts cannot be split into {groups} groups", experts=experts, groups=groups)
        open_experts = experts // groups * self.topk_group
        self._require(
            self.num_experts_per_tok <= open_experts and self.topk_group <= groups,
            "{chosen} experts per token cannot come from {topk_group} groups of {each}",
            chosen=self.num_experts_per_tok, topk_group=self.topk_group, each=experts // groups,
        )  # fmt: skip
        self._require(
            self.topk_method != "noaux_tc" or groups == 1 or experts // groups >= 2,
            "a group needs two experts or more, for it is scored by its best two",
        )

    def _need(self, name: str, condition: bool, need: str, **values: Any) -> None:
        self._require(condition, "{name} is {found!r}; {need}", name=name, found=getattr(self, name), need=Phrase(need, **values))

    def _require(self, condition: bool, complaint: str, **values: Any) -> None:
        if not condition:
            found = Phrase(complaint, **values)
            raise UserError("This {family} model configuration is impossible: {found}.", family=self.model_type, found=found)

    @property
    def is_latent(self) -> bool:
        """Whether attention is multi-head latent attention."""
        return self.model_type in LATENT

    def layer_has_experts(self, layer: int) -> bool:
        """Whether decoder layer `layer` (multi-token prediction layers follow the main ones) is a mixture of experts."""
        return self.is_latent and self.n_routed_experts > 0 and layer >= self.first_k_dense_replace

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Every token that ends a generation."""
        if self.eos_token_id is None:
            return frozenset()
        return frozenset([self.eos_token_id] if isinstance(self.eos_token_id, int) else self.eos_token_id)

    def with_(self, **changes: Any) -> "ModelConfig":
        """A copy with some fields changed, checked again."""
        return replace(self, **changes)

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "ModelConfig":
        """Reads the object in a Hugging Face `config.json` (transformers 4 or 5 spelling). Raises UserError for what we cannot run."""
        model_type = raw.get("model_type")
        if model_type not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UserError(
                "The model's architecture is {found!r}; Spoutnik runs {known}. Choose one of these.", found=model_type, known=known
            )
        raw = _current_names(raw)
        for name, expected in _implied(model_type).items():
            found = raw.get(name)
            if found is not None and found != expected:
                raise UserError(
                    "The model has {name} {found!r}, and Spoutnik runs a {model_type} only with {expected!r}.",
                    name=name, found=found, model_type=model_type, expected=expected,
                )  # fmt: skip
        names = {field.name for field in fields(cls)}
        values = {name: value for name, value in raw.items() if name in names and value is not None}
        values.setdefault("num_key_value_heads", raw.get("num_attention_heads", 0))
        if model_type == "qwen2":
            values["sliding_window"] = _qwen2_window(raw)
        elif model_type != "mistral":
            values.pop("sliding_window", None)
        if model_type in LATENT:
            values.pop("head_dim", None)
        if model_type == "deepseek_v2":
            values.setdefault("topk_method", "greedy")
            values["norm_topk_prob"] = bool(raw.get("norm_topk_prob", False))
        try:
            values["rope_theta"], values["rope_scaling"] = _read_rope(raw)
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise UserError(
                "config.json lacks a field of a {family} model, or has one of a wrong type: {error}.", family=model_type, error=str(error)
            ) from error

    def to_hf(self) -> dict[str, Any]:
        """The object for `config.json`, such that transformers builds the same model."""
        values = {name: value for name, value in asdict(self).items() if name not in _hidden_fields(self)}
        values |= {"architectures": [ARCHITECTURES[self.model_type]]} | _implied(self.model_type)
        if self.model_type == "qwen2":
            values["use_sliding_window"] = self.sliding_window is not None
            values["max_window_layers"] = 0
        return values


def _hidden_fields(config: ModelConfig) -> set[str]:
    """Fields that belong to the other families, or that the family implies."""
    latent = {name for name in (field.name for field in fields(ModelConfig)) if name in _LATENT_FIELDS}
    if config.is_latent:
        return {"head_dim", "sliding_window", "mlp_bias"}
    hidden = latent | (set() if config.model_type in ("mistral", "qwen2") else {"sliding_window"})
    return hidden | ({"attention_bias", "mlp_bias"} if config.model_type in ("qwen2", "mistral") else set())


_LATENT_FIELDS = {
    "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "n_routed_experts", "n_shared_experts",
    "num_experts_per_tok", "moe_intermediate_size", "first_k_dense_replace", "n_group", "topk_group", "topk_method", "norm_topk_prob",
    "routed_scaling_factor", "num_nextn_predict_layers",
}  # fmt: skip


def _implied(model_type: str) -> dict[str, Any]:
    """What a family's `config.json` says in words and our code takes for granted."""
    implied: dict[str, Any] = {"hidden_act": "silu"}
    if model_type in LATENT:
        implied |= {"scoring_func": "sigmoid" if model_type == "deepseek_v3" else "softmax", "moe_layer_freq": 1}
    if model_type == "deepseek_v3":
        implied["rope_interleave"] = True
    return implied


def _qwen2_window(raw: dict[str, Any]) -> int | None:
    """The window of all layers, or None. Qwen2 may leave its first `max_window_layers` without one, which we do not run."""
    window, layers, full = raw.get("sliding_window"), raw.get("num_hidden_layers", 0), raw.get("max_window_layers", 28)
    if not raw.get("use_sliding_window", False) or window is None or full >= layers:
        return None
    if full > 0:
        raise UserError(
            "The model has a sliding window in {windowed} of its {layers} layers; Spoutnik runs a window in all layers or in none.",
            windowed=layers - full,
            layers=layers,
        )
    return int(window)


def _current_names(raw: dict[str, Any]) -> dict[str, Any]:
    """transformers 5 renamed a few fields; ours are the published ones."""
    renamed = {"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"}
    return {renamed.get(name, name): value for name, value in raw.items()}


def _read_rope(raw: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """(rope_theta, rope_scaling) from either spelling: `rope_theta` + `rope_scaling`, or `rope_parameters` holding both."""
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    theta = float(rope.pop("rope_theta", None) or raw.get("rope_theta") or 10000.0)
    rope_type = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    if rope_type == "default":
        return theta, None
    return theta, {"rope_type": rope_type, **rope}
