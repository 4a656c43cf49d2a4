"""The stage of reinforcement learning: its algorithms and their published values."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spoutnik.recipe.tables import Dtype, Fraction, LearntTask, Optimised, Positive, Table

PUBLISHED: dict[str, dict[str, Any]] = {
    "grpo": {"clip": 10.0, "kl_coef": 0.001},
    "dr_grpo": {"clip": 0.2, "kl_coef": 0.0},
    "dapo": {"clip": 0.2, "clip_high": 0.28, "kl_coef": 0.0, "sampling_rounds": 4},
    "gspo": {"clip": 3e-4, "clip_high": 4e-4, "kl_coef": 0.0},
    "v32": {"clip": 10.0, "kl_coef": 0.001, "kl_estimate": "unbiased", "off_policy_delta": 0.5, "keep_routing": True},
}
"""What an algorithm sets unless the recipe does: its paper's values (R1's for v32, whose paper names none)."""
OVERLONG_SHARE = 5
"""DAPO's L_cache is a fifth of the longest answer."""


class Curriculum(Table):
    """Problems are drawn from a pool of so many, those that are solved now and then more often."""

    problems: Positive


class Monitor(Table):
    """Ends the run where an independent check rejects more than this share of samples that were rewarded as right, over so many steps."""

    max_disputed: Fraction = 0.05
    steps: Positive = 10


class RLStage(Optimised):
    """Reinforcement learning with verifiable rewards. Keys without a default of their own have the algorithm's: see PUBLISHED."""

    kind: Literal["rl"] = "rl"
    from_: str = Field(alias="from")
    algorithm: Literal["grpo", "dr_grpo", "dapo", "gspo", "v32"] = "grpo"
    task: LearntTask
    prompts: Positive
    group: Annotated[int, Field(ge=2)]
    max_new_tokens: Positive
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """Answers are drawn from the likeliest tokens only; training then looks at the same ones."""
    learning_rate: Annotated[float, Field(gt=0)]
    clip: Annotated[float, Field(gt=0)]
    clip_high: Annotated[float, Field(gt=0)]
    """The upper bound of the ratio less 1; `clip` where the algorithm has one bound."""
    kl_coef: Annotated[float, Field(ge=0)]
    kl_estimate: Literal["k3", "unbiased"] = "k3"
    reference_every: Positive = 400
    minibatches: Positive = 1
    micro_batch_tokens: Positive = 8192
    """Tokens, with their padding, that are computed at once (one answer at least); decides memory, not what is learnt."""
    average: Literal["answers", "tokens"] = "answers"
    """GRPO's mean over an answer's tokens, then over answers; or over all tokens at once."""
    off_policy_delta: Annotated[float, Field(gt=0)] | None = None
    """Bad answers that the policy has moved away from by more nats a token than this teach nothing."""
    keep_routing: bool = False
    """Whether later mini-batches send tokens to the experts that they went to before the first; nothing without experts or mini-batches."""
    sampling_rounds: Positive = 1
    """Most times that problems are drawn in a step, to replace groups without signal."""
    overlong_cache: Annotated[int, Field(ge=0)] = 0
    """The last so many tokens of the longest answer that are punished."""
    curriculum: Curriculum | None = None
    monitor: Monitor = Monitor()
    language_weight: Annotated[float, Field(ge=0)] = 0.0
    format_weight: Annotated[float, Field(ge=0)] = 1.0
    dtype: Dtype = "float32"

    def inputs(self) -> dict[str, str]:
        return {"from": self.from_}

    @property
    def truncates(self) -> bool:
        """Whether the sampler draws from some of the tokens only."""
        return self.top_p < 1 or self.top_k > 0

    @model_validator(mode="before")
    @classmethod
    def as_published(cls, value: Any) -> Any:
        """Fills in what the algorithm sets."""
        if not isinstance(value, dict) or value.get("algorithm", "grpo") not in PUBLISHED:
            return value
        filled = {**PUBLISHED[value.get("algorithm", "grpo")], **value}
        filled.setdefault("clip_high", filled["clip"])
        if filled.get("algorithm") == "dapo" and isinstance(filled.get("max_new_tokens"), int):
            filled.setdefault("overlong_cache", filled["max_new_tokens"] // OVERLONG_SHARE)
        return filled

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.prompts % self.minibatches:
            raise ValueError(f"prompts ({self.prompts}) must be a multiple of minibatches ({self.minibatches}): groups are never cut")
        if self.average == "tokens" and self.algorithm != "grpo":
            raise ValueError(f"`average` belongs to algorithm = 'grpo'; {self.algorithm} has an average of its own: leave it out")
        needed = self.prompts * self.sampling_rounds
        if self.curriculum is not None and self.curriculum.problems < needed:
            raise ValueError(f"curriculum.problems must be at least prompts * sampling_rounds ({needed}), the most that a step draws")
        if self.overlong_cache > self.max_new_tokens:
            raise ValueError(f"overlong_cache ({self.overlong_cache}) must be at most max_new_tokens ({self.max_new_tokens})")
        return self
