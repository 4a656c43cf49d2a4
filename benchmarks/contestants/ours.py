"""The engine of this project, as the library and the server use it: scheduling, paging, sampling, log-probabilities and Python included.

python -m contestants.ours DIRECTORY PRECISION THREADS [--start]
"""

import sys
import time
from collections.abc import Callable

from contestants.job import Job, Timing
from contestants.worker import Worker, serve

PRECISIONS = ("float32", "bfloat16", "int8", "int4")
START_PROMPT = "The capital of France is"


def contestant(directory: str, precision: str, threads: int) -> Worker:
    return Worker(f"Spoutnik {precision}", "ours", [directory, precision, str(threads)], environment={"OMP_NUM_THREADS": str(threads)})


def load(directory: str, precision: str):  # type: ignore[no-untyped-def]  # nothing of ours is imported before the clock runs
    import spoutnik

    if precision in ("int8", "int4"):
        return spoutnik.load(directory, quantize=precision)
    return spoutnik.load(directory, dtype=precision)


def engine(directory: str, precision: str) -> Callable[[Job], Timing]:
    from spoutnik.engine.generator import Engine
    from spoutnik.engine.request import Request
    from spoutnik.engine.runner import choose_runner
    from spoutnik.engine.sampler import derive_seed

    model = load(directory, precision)
    length = model.config.max_position_embeddings
    runner = choose_runner(model.model, 64, length, precision if precision in ("int8", "int4") else None)
    engine = Engine(model.model, model.tokenizer, 64, length, runner)
    model.tokenizer.eos_token_ids = frozenset()

    def run(job: Job) -> Timing:
        prompts = job.prompt_ids(model.config.vocab_size)
        began, before = time.perf_counter(), engine.tokens_generated
        for index, ids in enumerate(prompts):
            engine.add(Request(ids, job.new, job.temperature, seed=derive_seed(job.seed, index)))
        lines = engine._scheduler  # long prompts take several steps, and only here can be seen when each has its first token
        while lines.waiting or not all(sequence.token_ids for sequence in lines.running):
            engine.step()
        first, early = time.perf_counter() - began, engine.tokens_generated - before - len(prompts)
        while engine.busy:
            engine.step()
        return Timing(first, time.perf_counter() - began, early)

    return run


def main() -> None:
    directory, precision, threads = sys.argv[1:4]
    if "--start" in sys.argv:
        print(load(directory, precision).generate([START_PROMPT], 1, temperature=0)[0].text, flush=True)
        return
    import torch

    torch.set_num_threads(int(threads))
    serve(lambda: engine(directory, precision))


if __name__ == "__main__":
    main()
