"""Pretraining: next-token loss, plus multi-token prediction and expert balance where the model has them."""

import time
from pathlib import Path

import torch
from torch import Tensor

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.data.corpus import open_corpus
from spoutnik.data.tokens import TokenFile
from spoutnik.device import computing_device
from spoutnik.model.config import ModelConfig
from spoutnik.model.depth import depth_config
from spoutnik.model.flops import training_flops
from spoutnik.model.init import initialise, learning_rate_of
from spoutnik.model.moe import Routing
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.schema import PretrainStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.balance import ExpertLoad, balance_losses
from spoutnik.train.held_out import held_out
from spoutnik.train.losses import token_logprobs
from spoutnik.train.optim import Optimizer
from spoutnik.train.schedule import factor
from spoutnik.train.state import TrainState, load_state, save_state
from spoutnik.train.update import apply_update

MICRO_BATCH_TOKENS = 4096
LOAD_EVERY = 10


def run_pretrain(stage: PretrainStage, context: StageContext) -> None:
    """Trains a fresh model on a corpus stage's tokens and writes it as a Hugging Face directory."""
    tokens, tokenizer = open_corpus(context.resolve(stage.data))

    def start() -> TrainState:
        return fresh_state(stage, tokenizer, context.seed)

    def load(folder: Path) -> TrainState:
        return load_state(start(), folder)

    state = run_stage(context, stage.steps, start, lambda state: pretrain_step(state, stage, context, tokens), save_state, load)
    if (figures := held_out(state.model, context.resolve(stage.data), stage.sequence_length)) is not None:
        context.log("held-out", **figures)
    save_checkpoint(state.model, tokenizer, context.checkpoint_dir, lineage=context.lineage)


def fresh_state(stage: PretrainStage, tokenizer: Tokenizer, seed: int) -> TrainState:
    """The model, on the computing device, and the optimiser that a stage begins with."""
    with computing_device():
        model = CausalLM(_config(stage, tokenizer))
    initialise(model, seed)
    learning_rate = stage.learning_rate or learning_rate_of(model.config)
    return TrainState(model, Optimizer(model, learning_rate, stage.weight_decay, muon=stage.optimizer == "muon"))


def _config(stage: PretrainStage, tokenizer: Tokenizer) -> ModelConfig:
    config = depth_config(stage.model.family, stage.model.depth, tokenizer.vocab_size)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return config.with_(**(ids | stage.model.overrides))


def pretrain_step(state: TrainState, stage: PretrainStage, context: StageContext, tokens: TokenFile) -> dict[str, object]:
    """One optimiser step on `batch_tokens` tokens; returns the metrics of the record."""
    began, model = time.perf_counter(), state.model
    ids_BT = tokens.batch(state.step, stage.batch_tokens // stage.sequence_length, stage.sequence_length).to(state.device)
    load, sums = ExpertLoad(), torch.zeros(4, device=state.device)
    rows = max(1, MICRO_BATCH_TOKENS // stage.sequence_length)
    for micro_BT in ids_BT.split(rows):
        share = len(micro_BT) / len(ids_BT)
        with torch.autocast(micro_BT.device.type, dtype=torch.bfloat16, enabled=stage.dtype == "bfloat16"):
            parts = pretrain_losses(model, micro_BT, stage, load)
        (parts[0] * share).backward()
        sums += parts.detach() * share
    loss, ce, mtp, balance = sums.tolist()
    scale = factor(stage.schedule, state.step, stage.steps, stage.warmup, stage.decay)
    norm = apply_update(state, loss, scale, stage.grad_clip, stage.max_bad_steps, context, {"ids": ids_BT})
    if not state.bad_steps:
        load.update_bias(model, stage.balance.bias_update_rate)
    state.step += 1
    context.ledger.add(ids_BT.numel(), training_flops(model.config, ids_BT.numel(), stage.sequence_length))
    balance_metrics = load.metrics()
    if state.step % LOAD_EVERY:
        balance_metrics.pop("load", None)
    extra = {"mtp_loss": mtp, "balance_loss": balance} if load.counts_E else {}
    return {
        "loss": loss, "ce": ce, **extra, "grad_norm": norm, "learning_rate": state.optimizer.learning_rate * scale,
        "tokens": ids_BT.numel(), "tokens_per_s": ids_BT.numel() / (time.perf_counter() - began), **balance_metrics,
    }  # fmt: skip


def pretrain_losses(model: CausalLM, ids_BT: Tensor, stage: PretrainStage, load: ExpertLoad) -> Tensor:
    """[total, next-token, further-token, sequence-wise balance] losses of a micro-batch; only the total is meant to be differentiated.

    total = CE + mtp_weight * mean over depths of their CE (V3, equation 25) + sequence_loss * balance (V3, equation 17) + batch_loss * (the
    like over all tokens of the micro-batch).
    """
    routing = Routing()
    hidden_BTD = model.hidden(ids_BT, routing=routing)
    ce = -token_logprobs(model.head(hidden_BTD[:, :-1]), ids_BT[:, 1:]).mean()
    mtp, depths = ce.new_zeros(()), model.config.num_nextn_predict_layers if stage.mtp_weight else 0
    further_BTD = hidden_BTD
    for depth in range(depths):
        further_BTD = model.predict_further(further_BTD[:, :-1], ids_BT[:, 1 + depth :], routing=routing, depth=depth)
        mtp = mtp - token_logprobs(model.head(further_BTD[:, :-1]), ids_BT[:, 2 + depth :]).mean() / depths
    load.add(routing)
    balance = whole = ce.new_zeros(())
    if routing.layers:
        balance, whole = balance_losses(routing, len(ids_BT), model.config.num_experts_per_tok)
    total = ce + stage.mtp_weight * mtp + stage.balance.sequence_loss * balance + stage.balance.batch_loss * whole
    return torch.stack((total, ce.detach(), mtp.detach(), balance.detach()))
