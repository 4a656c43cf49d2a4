"""transformers: `generate()` with its default cache. It computes no log-probabilities here, which flatters it where they are wanted.

python -m contestants.hugging_face DIRECTORY DTYPE THREADS [--start]
"""

import sys
import time
from collections.abc import Callable

from contestants.job import Job, Timing
from contestants.ours import START_PROMPT
from contestants.worker import Worker, serve

DTYPES = ("bfloat16", "float32")


def contestant(directory: str, dtype: str, threads: int) -> Worker:
    arguments, environment = [directory, dtype, str(threads)], {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return Worker(f"transformers {dtype}", "hugging_face", arguments, environment=environment)


def engine(directory: str, dtype: str) -> Callable[[Job], Timing]:
    import torch
    from transformers import AutoModelForCausalLM, StoppingCriteriaList

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None

    def run(job: Job) -> Timing:
        prompts = job.prompt_ids(model.config.vocab_size)
        ids = torch.tensor(prompts[:1] if job.shared else prompts)
        torch.manual_seed(job.seed)
        times: list[float] = []

        def watch(ids: torch.Tensor, _: object) -> torch.Tensor:
            times.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

        drawing = {"do_sample": True, "temperature": job.temperature, "top_k": 0, "top_p": 1.0} if job.temperature else {"do_sample": False}
        began = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=job.new, min_new_tokens=job.new, pad_token_id=0,
                num_return_sequences=job.prompts if job.shared else 1, stopping_criteria=StoppingCriteriaList([watch]), **drawing,
            )  # fmt: skip
        return Timing(times[0] - began, time.perf_counter() - began)

    return run


def first_token(directory: str, dtype: str) -> str:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    encoded = tokenizer(START_PROMPT, return_tensors="pt")
    return tokenizer.decode(model.generate(**encoded, max_new_tokens=1, do_sample=False, pad_token_id=0)[0, -1:])


def main() -> None:
    directory, dtype, _ = sys.argv[1:4]
    if "--start" in sys.argv:
        print(first_token(directory, dtype), flush=True)
    else:
        serve(lambda: engine(directory, dtype))


if __name__ == "__main__":
    main()
