"""What guessing ahead brings: tokens a second without it, with it always, and where the engine chooses; in turns, on one machine.

    python benchmarks/speculation.py runs/sputnik/checkpoints/base --batch 1 4 16

Prompts are Countdown problems as in the default recipe, and answers do not end before `--new` tokens. Of eight runs of each kind the
first is not counted; rates are of the median.
"""

import argparse
import time
from statistics import median

import spoutnik
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.request import Completion, Request
from spoutnik.engine.runner import choose_runner
from spoutnik.errors import UserError
from spoutnik.library import Model
from spoutnik.tasks.registry import make

RUNS = 7


class Always:
    """Guesses whatever it costs."""

    def guesses(self, sequences: int) -> bool:
        return True

    def note(self, sequences: int, guessed: bool, seconds: float, tokens: int) -> None:
        pass


def engines(model: Model, batch: int) -> dict[str, Engine]:
    length = model.config.max_position_embeddings
    kinds = ("without", "always", "chosen")
    made = {kind: choose_runner(model.model, max(batch, 64), length, speculate=kind != "without") for kind in kinds}
    always = made["always"]
    if not isinstance(always, KernelRunner) or always.drafting is None:
        raise UserError("There is nothing to compare: the model has no multi-token prediction layer, or the kernels cannot run it.")
    always.drafting.chooser = Always()
    return {kind: Engine(model.model, model.tokenizer, max(batch, 64), length, runner) for kind, runner in made.items()}


def compare(model: Model, batch: int, new: int, temperature: float) -> str:
    task = make("countdown", numbers=[3], low=1, high=20, operators="+-", target_max=60)
    problems = [task.problem("held-out", 0, index).prompt for index in range(batch)]
    prompts = [model.tokenizer.encode(model.tokenizer.render([{"role": "user", "content": prompt}])) for prompt in problems]
    requests = [Request(ids, new, temperature, seed=index) for index, ids in enumerate(prompts)]
    seconds: dict[str, list[float]] = {}
    answers: dict[str, list[Completion]] = {}
    running = engines(model, batch)
    for _ in range(1 + RUNS):
        for kind, engine in running.items():
            engine.refresh()  # no prompt is known from the run before
            began = time.perf_counter()
            answers[kind] = engine.generate(requests)
            seconds.setdefault(kind, []).append(time.perf_counter() - began)
    assert answers["without"] == answers["always"] == answers["chosen"]
    taken = {kind: median(times[1:]) for kind, times in seconds.items()}
    drafted, accepted = (sum(getattr(one, name) for one in answers["always"]) for name in ("drafted_tokens", "accepted_tokens"))
    rates = ", ".join(f"{kind} {batch * new / taken[kind]:,.0f}/s ({taken['without'] / taken[kind]:.2f}x)" for kind in taken)
    return f"batch {batch}: {rates}; {accepted} of {drafted} guesses right ({accepted / max(drafted, 1):.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--new", type=int, default=160)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    model = spoutnik.load(arguments.model, dtype=arguments.dtype)
    model.tokenizer.eos_token_ids = frozenset()
    for batch in arguments.batch:
        print(compare(model, batch, arguments.new, arguments.temperature), flush=True)


if __name__ == "__main__":
    main()
