"""Supervised fine-tuning: cross-entropy on the answers' tokens, thinking included. Distillation by samples is the same act."""

import time
from pathlib import Path

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.model.flops import training_flops
from spoutnik.recipe.schema import DistillStage, SFTStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.train.algorithms.imitate import imitate
from spoutnik.train.algorithms.streams import objective
from spoutnik.train.examples import Example, batch_of, collate, read_examples
from spoutnik.train.optim import Optimizer
from spoutnik.train.schedule import factor
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in
from spoutnik.train.state import TrainState, load_state, save_state
from spoutnik.train.update import apply_update


def run_sft(stage: SFTStage, context: StageContext) -> None:
    """Fine-tunes the model `from` on `data` and writes it as a Hugging Face directory."""
    imitate_samples(stage, context.resolve(stage.from_), context.resolve(stage.data), stage.batch_size, context)


def imitate_samples(
    stage: SFTStage | DistillStage, model_path: Path, data: Path, batch_size: int, context: StageContext, chat_template: str | None = None
) -> None:
    """Supervised training of the model at `model_path` on the examples at `data`. Weights are float32; `dtype` is that of the matmuls.

    `chat_template` replaces the model's own, for good.
    """
    model, tokenizer = open_model(model_path, device=computing_device())
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    examples = read_examples(data, tokenizer, model.config.max_position_embeddings)

    def start() -> TrainState:
        return TrainState(model, Optimizer(model, stage.learning_rate, stage.weight_decay))

    def load(folder: Path) -> TrainState:
        return load_state(start(), folder)

    state = run_stage(context, stage.steps, start, lambda state: sft_step(state, stage, examples, batch_size, context), save_state, load)
    save_checkpoint(state.model, tokenizer, context.checkpoint_dir, lineage=context.lineage)


def sft_step(
    state: TrainState, stage: SFTStage | DistillStage, examples: list[Example], batch_size: int, context: StageContext
) -> dict[str, object]:
    """One optimiser step on `batch_size` examples."""
    began = time.perf_counter()
    batch = batch_of(examples, state.step, batch_size, context.seed)
    ids_BT, mask_BT = collate([example.ids for example in batch], [example.answer_start for example in batch], device=state.device)
    with computed_in(stage.dtype, ids_BT):
        logits_NV = answer_logits(state.model, ids_BT, mask_BT)
    logprobs_BT = answer_logprobs(logits_NV, ids_BT, mask_BT)
    loss = objective(imitate(mask_BT), logprobs_BT)
    loss.backward()
    scale = factor(stage.schedule, state.step, stage.steps, stage.warmup)
    norm = apply_update(state, loss.item(), scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT, "mask": mask_BT})
    state.step += 1
    tokens = sum(len(example.ids) for example in batch)
    context.ledger.add(tokens, training_flops(state.model.config, tokens, ids_BT.shape[1]))
    return {
        "loss": loss.item(), "grad_norm": norm, "learning_rate": state.optimizer.learning_rate * scale, "tokens": tokens,
        "tokens_per_s": tokens / (time.perf_counter() - began),
    }  # fmt: skip
