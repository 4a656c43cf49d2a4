"""How a training run lies on its devices: five kinds of parallelism, the pipeline's schedule, what is recomputed, kept where, in what."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from spoutnik.errors import Phrase, UserError
from spoutnik.plan.schedule import SCHEDULES, check, chunks_per_device
from spoutnik.plan.shape import Model

RECOMPUTE = ("none", "selective", "full")
PRECISIONS = ("bf16", "fp8", "fp8-kept")
OPTIMISERS = ("adamw", "adamw-fsdp", "adamw-v3", "muon")
CHOICES: dict[str, tuple[Any, ...]] = {
    "schedule": SCHEDULES, "recompute": RECOMPUTE, "precision": PRECISIONS, "optimiser": OPTIMISERS, "zero": (0, 1, 2, 3),
    "overlap": (True, False),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Raises UserError, saying what would work, for numbers that do not fit together."""

    data: int = 1
    """Replicas of the model; with ZeRO they share what `zero` says."""
    tensor: int = 1
    """Devices that share every matrix; norms are then cut along the sequence (sequence parallelism)."""
    context: int = 1
    """Devices that share a sequence."""
    pipeline: int = 1
    expert: int = 1
    """Devices that share a layer's routed experts; they are those of `data`, `context` and `tensor`."""
    chunks: int = 2
    """Stages on one device under the interleaved schedule; the others decide for themselves."""
    schedule: str = "1f1b"
    micro_batch_size: int = 1
    """Sequences that go through the model together."""
    sequence_length: int = 4096
    global_batch_tokens: int = 0
    """Tokens of one step of the optimiser; 0 means one microbatch for each stage and replica."""
    recompute: str = "none"
    """Activations computed again in the backward: none; selective (norms, activation functions, attention's core, latent attention's
    up-projections); full (all of a layer but its input)."""
    zero: int = 1
    """What `data` shares: 0 nothing, 1 the optimiser's state, 2 gradients too, 3 weights too."""
    precision: str = "bf16"
    """Of the linear layers' products: bf16; fp8; fp8-kept, whose activations wait for the backward in FP8, too, as DeepSeek-V3's do."""
    overlap: bool = True
    """Whether the program hides traffic of tensor parallelism behind products (asynchronous tensor parallelism)."""
    optimiser: str = "adamw"
    """adamw (Megatron's mixed precision), adamw-fsdp (weights and gradients in float32), adamw-v3 (moments in BF16), muon (one moment)."""

    def __post_init__(self) -> None:
        check_fields(vars(self))
        shared = self.data * self.context * self.tensor
        if shared % self.expert:
            raise UserError(
                "The layout has expert {expert}, but data x context x tensor is {shared}; expert must divide it, as {nearest} does.",
                expert=self.expert,
                shared=shared,
                nearest=_divisor(shared, self.expert),
            )
        per_step = self.data * self.micro_batch_size * self.sequence_length
        if self.global_batch_tokens == 0:
            microbatches = 2 * self.pipeline if self.schedule.startswith("dualpipe") or self.schedule == "zbv" else self.pipeline
            object.__setattr__(self, "global_batch_tokens", per_step * microbatches)
        if self.global_batch_tokens < per_step or self.global_batch_tokens % per_step:
            nearest = max(1, round(self.global_batch_tokens / per_step)) * per_step
            raise UserError(
                "A step of {global_batch_tokens:,} tokens cannot be dealt to {data} replicas in microbatches of "
                "{micro_batch_size} x {sequence_length} tokens; take a multiple of {per_step:,}, as {nearest:,}.",
                global_batch_tokens=self.global_batch_tokens,
                data=self.data,
                micro_batch_size=self.micro_batch_size,
                sequence_length=self.sequence_length,
                per_step=per_step,
                nearest=nearest,
            )
        if self.pipeline > 1:
            check(self.schedule, self.pipeline, self.microbatches, self.chunks)

    @property
    def devices(self) -> int:
        """Devices of the whole run."""
        return self.data * self.tensor * self.context * self.pipeline

    @property
    def microbatches(self) -> int:
        """Microbatches that go through one replica in a step."""
        return self.global_batch_tokens // (self.data * self.micro_batch_size * self.sequence_length)

    @property
    def stages(self) -> int:
        """Parts that the model's layers are cut into."""
        if self.pipeline == 1:
            return 1
        return self.pipeline * (1 if self.schedule == "dualpipe" else chunks_per_device(self.schedule, self.chunks))

    @property
    def stages_per_device(self) -> int:
        """Stages whose parameters a device holds; DualPipe has all of them twice."""
        return chunks_per_device(self.schedule, self.chunks) if self.pipeline > 1 else 1

    @property
    def tokens_per_microbatch(self) -> float:
        """Tokens of a microbatch on one device, before tensor parallelism cuts anything."""
        return self.micro_batch_size * self.sequence_length / self.context

    def check(self, model: Model) -> None:
        """Raises UserError where the model cannot be cut like that."""
        if self.stages > model.num_hidden_layers + 2:
            raise UserError(
                "The layout cuts {num_hidden_layers} layers into {stages} stages; it can have {most}.",
                num_hidden_layers=model.num_hidden_layers,
                stages=self.stages,
                most=model.num_hidden_layers + 2,
            )
        if model.num_attention_heads % self.tensor:
            raise UserError(
                "{num_attention_heads} attention heads cannot be shared by tensor {tensor}; take a divisor, as {nearest}.",
                num_attention_heads=model.num_attention_heads,
                tensor=self.tensor,
                nearest=_divisor(model.num_attention_heads, self.tensor),
            )
        if self.expert > 1 and (not model.n_routed_experts or model.n_routed_experts % self.expert):
            if not model.n_routed_experts:
                raise UserError("The layout has expert {expert}, but the model has no routed experts; take expert 1.", expert=self.expert)
            raise UserError(
                "{n_routed_experts} experts cannot be shared by expert {expert}; take a divisor, as {nearest}.",
                n_routed_experts=model.n_routed_experts,
                expert=self.expert,
                nearest=_divisor(model.n_routed_experts, self.expert),
            )
        if self.sequence_length % self.context:
            raise UserError(
                "Sequences of {sequence_length} tokens cannot be cut by context {context}; take a divisor.",
                sequence_length=self.sequence_length,
                context=self.context,
            )

    def to_dict(self) -> dict[str, Any]:
        """Its fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def phrase(self) -> Phrase:
        """In words, for people."""
        ways = [f"{name} {getattr(self, name)}" for name in ("data", "tensor", "context", "pipeline", "expert") if getattr(self, name) > 1]
        parallel: str | Phrase = " x ".join(ways) or Phrase("one device")
        if self.pipeline > 1:
            chunked = Phrase("interleaved with {chunks} chunks", chunks=self.chunks)
            schedule = chunked if self.schedule == "interleaved" else self.schedule
            parallel = Phrase("{parallel}, {schedule}", parallel=parallel, schedule=schedule)
        return Phrase(
            "{parallel}, {microbatches} microbatches of {micro_batch_size} x {sequence_length} ({step:,} tokens a step), ZeRO {zero}, "
            "recompute {recompute}, {precision}, {optimiser}",
            parallel=parallel, microbatches=self.microbatches, micro_batch_size=self.micro_batch_size,
            sequence_length=self.sequence_length, step=self.global_batch_tokens, zero=self.zero, recompute=self.recompute,
            precision=self.precision.upper(), optimiser=self.optimiser,
        )  # fmt: skip


KINDS = {field.name: field.type for field in fields(Layout)}


def check_fields(given: Mapping[str, Any]) -> None:
    """Raises UserError for a field that no layout has, or a value that it cannot have whatever the others are."""
    for name, value in given.items():
        if name not in KINDS:
            raise UserError("A layout has no {name!r}; its fields are {known}.", name=name, known=", ".join(KINDS))
        if name in CHOICES:
            if value not in CHOICES[name]:
                allowed = ", ".join(map(str, CHOICES[name]))
                raise UserError("The layout has {name} {found!r}; it must be one of {allowed}.", name=name, found=value, allowed=allowed)
        elif type(value) is not int or value < (name != "global_batch_tokens"):
            raise UserError("The layout has {name} {found!r}; it must be a whole number of 1 or more.", name=name, found=value)


def _divisor(number: int, wanted: int) -> int:
    """The divisor of `number` that is nearest to `wanted`."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wanted), d)) if number < 1 << 20 else 1
