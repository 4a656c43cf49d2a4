"""How many expert choices differ between the trainer and what sampled: by precision, and by what a step's updates move.

    python benchmarks/routing.py runs/sputnik/checkpoints/base

Answers to puzzles of the default recipe are sampled once. Their routing is then found by the modules in float32 and in bfloat16, reading
whole answers as training does, and token by token with a cache as sampling does; and once more after 1 to 8 updates of GRPO on them.
Shares are of the choices (token, layer, place) at the answers' tokens.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

import spoutnik
from spoutnik.engine.cache import SlotCache
from spoutnik.model.moe import Routing
from spoutnik.model.transformer import CausalLM
from spoutnik.tasks import make
from spoutnik.train.algorithms.groups import has_signal
from spoutnik.train.algorithms.grpo import grpo
from spoutnik.train.algorithms.streams import Clip, objective
from spoutnik.train.examples import collate
from spoutnik.train.optim import Optimizer
from spoutnik.train.rollouts import rollout_engine, sample_rollouts
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in

TASK = {"numbers": [3], "low": 1, "high": 20, "operators": "+-", "target_max": 60}
GROUP = 8


def choices(model: CausalLM, ids_BT: Tensor, mask_BT: Tensor, dtype: str, cached: bool = False) -> list[Tensor]:
    """The experts of each layer [N, K] at the places whose next token is part of an answer."""
    fed_BT, places = ids_BT[:, :-1], (mask_BT[:, 1:] > 0)
    with torch.no_grad(), computed_in("bfloat16" if dtype == "bfloat16" else "float32", ids_BT):
        if not cached:
            routing = Routing()
            model.hidden(fed_BT, routing=routing)
            return [experts_TK[places.flatten()] for experts_TK in routing.experts_TK]
        cache, steps = SlotCache(len(fed_BT), fed_BT.shape[1]), []
        for position in range(fed_BT.shape[1]):
            routing, at_B1 = Routing(), torch.full((len(fed_BT), 1), position)
            cache.place(range(len(fed_BT)), at_B1)
            model.hidden(fed_BT[:, position : position + 1], at_B1, cache, routing)
            steps.append(routing.experts_TK)
        return [torch.stack(layer, 1)[places] for layer in zip(*steps, strict=True)]


def different(found: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Share of choices in `found` that `other` does not make at the same token and layer."""
    new = sum(int((a[:, :, None] != b[:, None, :]).all(-1).sum()) for a, b in zip(found, other, strict=True))
    return new / sum(a.numel() for a in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--new", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    arguments = parser.parse_args()
    loaded, task = spoutnik.load(arguments.model, dtype="float32"), make("countdown", **TASK)
    model = loaded.model
    problems = [task.problem("train", 0, index) for index in range(arguments.problems)]
    engine = rollout_engine(model, loaded.tokenizer, arguments.problems * GROUP)
    rollouts = sample_rollouts(engine, task, problems, GROUP, 1.0, arguments.new, seed=0)
    ids_BT, mask_BT = collate([[*r.prompt_ids, *r.token_ids] for r in rollouts], [len(r.prompt_ids) for r in rollouts])
    whole = choices(model, ids_BT, mask_BT, "float32")
    print(f"{sum(one.numel() for one in whole):,} choices at {int(mask_BT.sum()):,} tokens of {len(rollouts)} answers")
    print("| choices by | differ from | share |\n| --- | --- | --- |")
    cached = choices(model, ids_BT, mask_BT, "float32", cached=True)
    print(f"| float32, token by token | float32, whole answers | {different(cached, whole):.4%} |")
    rounded = choices(model, ids_BT, mask_BT, "bfloat16")
    print(f"| bfloat16, whole answers | float32, whole answers | {different(rounded, whole):.3%} |")
    decoded = choices(model, ids_BT, mask_BT, "bfloat16", cached=True)
    print(f"| bfloat16, token by token | bfloat16, whole answers | {different(decoded, rounded):.3%} |")
    rewards_PG = torch.tensor([rollout.reward.accuracy + 0.2 * rollout.reward.format for rollout in rollouts]).view(-1, GROUP)
    streams, optimizer = grpo(rewards_PG, mask_BT, 0.0, len(rollouts), "tokens"), Optimizer(model, arguments.learning_rate, 0.0)
    sampler_BT: Tensor | None = None
    for update in range(1, 9):
        logprobs_BT = answer_logprobs(answer_logits(model, ids_BT, mask_BT), ids_BT, mask_BT)
        sampler_BT = logprobs_BT.detach() if sampler_BT is None else sampler_BT
        objective(streams, logprobs_BT, logprobs_BT - sampler_BT, Clip(10.0, 10.0)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(1.0)
        if update in (1, 2, 4, 8):
            moved = choices(model, ids_BT, mask_BT, "float32")
            print(f"| float32, after {update} updates | float32, before them | {different(moved, whole):.2%} |")
    print(f"{float(has_signal(rewards_PG).float().mean()):.0%} of the groups had signal; learning rate {arguments.learning_rate:g}")


if __name__ == "__main__":
    main()
