"""Learning from preferences: pairs of a better and a worse answer to the same prompt, by DPO."""

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.model.flops import forward_flops, training_flops
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.schema import DPOStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.train.algorithms.dpo import dpo, margins, preference_loss
from spoutnik.train.algorithms.streams import objective
from spoutnik.train.examples import Example, Pair, batch_of, collate, read_pairs
from spoutnik.train.optim import Optimizer
from spoutnik.train.schedule import factor
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in
from spoutnik.train.state import TrainState, load_state, save_state
from spoutnik.train.update import apply_update

REFERENCE_PAIRS = 8
"""Pairs of like length that the reference reads together."""


def run_dpo(stage: DPOStage, context: StageContext) -> None:
    """Trains the model `from` on the pairs in `data` and writes it as a Hugging Face directory; its own beginning is the reference."""
    model, tokenizer = open_model(context.resolve(stage.from_), device=computing_device())
    pairs = read_pairs(context.resolve(stage.data), tokenizer, model.config.max_position_embeddings)
    pairs = with_reference(model, pairs, stage, context)

    def start() -> TrainState:
        return TrainState(model, Optimizer(model, stage.learning_rate, stage.weight_decay))

    def load(folder: Path) -> TrainState:
        return load_state(start(), folder)

    def advance(state: TrainState) -> dict[str, object]:
        return dpo_step(state, stage, pairs, context)

    state = run_stage(context, stage.steps, start, advance, save_state, load)
    save_checkpoint(state.model, tokenizer, context.checkpoint_dir, lineage=context.lineage)


def with_reference(model: CausalLM, pairs: list[Pair], stage: DPOStage, context: StageContext) -> list[Pair]:
    """The pairs with what the untrained model says of both answers, which is computed once and kept in the stage's folder."""
    file, key = context.directory / "reference.safetensors", _digest(pairs)
    found_P2 = _kept(file, key)
    if found_P2 is None:
        found_P2 = _reference_logprobs(model, pairs, stage, context)
        aside = file.with_suffix(".new")
        save_file({"logprobs": found_P2}, aside, metadata={"pairs": key})
        os.replace(aside, file)
    return [replace(pair, reference=tuple(found)) for pair, found in zip(pairs, found_P2.tolist(), strict=True)]


def _kept(file: Path, key: str) -> Tensor | None:
    """What the file holds of these very pairs."""
    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as kept:
        return kept.get_tensor("logprobs") if kept.metadata() == {"pairs": key} else None


def _reference_logprobs(model: CausalLM, pairs: list[Pair], stage: DPOStage, context: StageContext) -> Tensor:
    """[P, 2] float32, of chosen and rejected answers."""
    order = sorted(range(len(pairs)), key=lambda index: len(pairs[index].ids))
    found_P2 = torch.zeros(len(pairs), 2)
    for first in range(0, len(order), REFERENCE_PAIRS):
        chosen = order[first : first + REFERENCE_PAIRS]
        ids_BT, mask_BT = _collate([pairs[index] for index in chosen], model.lm_head.weight.device)
        with torch.no_grad():
            found_P2[chosen] = _logprobs(model, stage, ids_BT, mask_BT).sum(-1).view(-1, 2).cpu()
        context.ledger.add(ids_BT.numel(), forward_flops(model.config, ids_BT.numel(), ids_BT.shape[1]))
    return found_P2


def dpo_step(state: TrainState, stage: DPOStage, pairs: list[Pair], context: StageContext) -> dict[str, object]:
    """One optimiser step on `batch_size` pairs, of which the reference has spoken."""
    began = time.perf_counter()
    batch = batch_of(pairs, state.step, stage.batch_size, context.seed)
    ids_BT, mask_BT = _collate(batch, state.device)
    reference_P2 = torch.tensor([pair.reference for pair in batch], device=state.device)
    logprobs_BT = _logprobs(state.model, stage, ids_BT, mask_BT)
    margin_P = margins(logprobs_BT.detach(), reference_P2.flatten())
    objective(dpo(margin_P, mask_BT, stage.beta), logprobs_BT).backward()
    loss = float(preference_loss(margin_P, stage.beta))
    scale = factor(stage.schedule, state.step, stage.steps, stage.warmup)
    norm = apply_update(state, loss, scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT, "mask": mask_BT})
    state.step += 1
    tokens = sum(len(example.ids) for pair in batch for example in (pair.chosen, pair.rejected))
    context.ledger.add(tokens, training_flops(state.model.config, tokens, ids_BT.shape[1]))
    gain_P2 = logprobs_BT.detach().sum(-1).view(-1, 2) - reference_P2
    return {
        "loss": loss, "margin": float(margin_P.mean()), "preferred": float((margin_P > 0).float().mean()),
        "chosen_gain": float(gain_P2[:, 0].mean()), "rejected_gain": float(gain_P2[:, 1].mean()), "grad_norm": norm,
        "learning_rate": state.optimizer.learning_rate * scale, "tokens": tokens, "tokens_per_s": tokens / (time.perf_counter() - began),
    }  # fmt: skip


def _logprobs(model: CausalLM, stage: DPOStage, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    with computed_in(stage.dtype, ids_BT):
        logits_NV = answer_logits(model, ids_BT, mask_BT)
    return answer_logprobs(logits_NV.float(), ids_BT, mask_BT)


def _collate(pairs: list[Pair], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows: chosen, rejected, chosen, ..."""
    examples: list[Example] = [example for pair in pairs for example in (pair.chosen, pair.rejected)]
    return collate([example.ids for example in examples], [example.answer_start for example in examples], device=device)


def _digest(pairs: list[Pair]) -> str:
    """Of the tokens of all pairs."""
    content = json.dumps([[pair.chosen.ids, pair.rejected.ids] for pair in pairs])
    return hashlib.sha256(content.encode()).hexdigest()
