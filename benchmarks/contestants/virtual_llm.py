"""vLLM on a CPU, in bfloat16 with its defaults (compiled, prefixes cached), in an environment of its own.

Its engine runs in the calling process, where it was faster than in another one (a tenth to a fifth with one and with eight requests).

python -m contestants.virtual_llm DIRECTORY [--start]
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from contestants.job import Job, Timing
from contestants.ours import START_PROMPT
from contestants.worker import Worker, serve

LENGTH = 1024


def contestant(directory: str, threads: int, python: Path, preload: tuple[Path, ...], cache: Path) -> Worker:
    environment = {
        "LD_PRELOAD": " ".join(map(str, preload)), "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}", "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CACHE_ROOT": str(cache), "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    return Worker("vLLM bfloat16", "virtual_llm", [directory], str(python), environment)


def load(directory: str):  # type: ignore[no-untyped-def]  # vLLM is in another environment
    from vllm import LLM

    return LLM(directory, dtype="bfloat16", max_model_len=LENGTH, max_num_seqs=64)


def engine(directory: str) -> Callable[[Job], Timing]:
    from vllm import SamplingParams

    model = load(directory)
    vocabulary = model.llm_engine.model_config.get_vocab_size()

    def generate(job: Job, new: int, seed: int) -> float:
        prompts = Job(job.prompts, job.length, job.new, job.shared, seed=seed).prompt_ids(vocabulary)
        settings = SamplingParams(
            n=job.prompts if job.shared else 1, temperature=job.temperature, max_tokens=new, min_tokens=new, ignore_eos=True,
            detokenize=False, logprobs=0 if job.logprobs else None,
        )  # fmt: skip
        given = [{"prompt_token_ids": ids} for ids in (prompts[:1] if job.shared else prompts)]
        began = time.perf_counter()
        model.generate(given, settings, use_tqdm=False)
        return time.perf_counter() - began

    def run(job: Job) -> Timing:
        """It tells no time of the first tokens, so prompts of their own are run to these alone."""
        first = generate(job, 1, job.seed + 1_000_000)
        return Timing(first, first if job.new == 1 else generate(job, job.new, job.seed))

    return run


def main() -> None:
    if "--start" in sys.argv:
        from vllm import SamplingParams

        print(load(sys.argv[1]).generate([START_PROMPT], SamplingParams(temperature=0, max_tokens=1))[0].outputs[0].text, flush=True)
    else:
        serve(lambda: engine(sys.argv[1]))


if __name__ == "__main__":
    main()
