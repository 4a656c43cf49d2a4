"""llama.cpp by its own `llama-batched-bench`, which feeds fixed tokens and draws none: its figures hold no sampling.

Where it aborts with weights in a layout of the processor's own (version 11434 does with latent attention in 8 or 4 bits on AMX), it runs
with them as they are in the file.
"""

import json
import subprocess
from pathlib import Path

from contestants.job import Job, Timing
from contestants.ours import START_PROMPT
from contestants.worker import WARM_UP

TYPES = ("BF16", "Q8_0", "Q4_1")
ASSERTION = "GGML_ASSERT"


class LlamaCpp:
    """One GGUF file. A process a job: it loads in less than a second, and that is not timed.

    Raises RuntimeError if it cannot run at all.
    """

    def __init__(self, programs: Path, file: Path, file_type: str, threads: int):
        self.name = f"llama.cpp {file_type}"
        self.notes: list[str] = []
        self._programs, self._file = programs, str(file)
        self._settings = ["-t", str(threads)]
        try:
            self.run(WARM_UP)
        except RuntimeError as reason:
            self._settings.append("--no-repack")
            self.notes.append(f"{self.name} runs with --no-repack, for without it: {reason}")
            self.run(WARM_UP)

    def run(self, job: Job) -> Timing:
        context = (job.length if job.shared else job.prompts * job.length) + job.prompts * job.new
        sizes = {"-npp": job.length, "-ntg": max(job.new - 1, 1), "-npl": job.prompts, "-c": context + 512, "-b": 2048, "-ub": 512}
        settings = [*self._settings, "--output-format", "jsonl"]
        # Measured: separate prompts are fastest in caches of their own, samples of one prompt in one cache without flash attention.
        settings += ["-kvu", "-pps", "-fa", "off"] if job.shared else ["-no-kvu", "-fa", "on"]
        numbers = [str(part) for pair in sizes.items() for part in pair]
        command = [str(self._programs / "llama-batched-bench"), "-m", self._file, *numbers, *settings]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        line = next((line for line in result.stdout.splitlines() if line.startswith("{")), None)
        if line is None:
            raise RuntimeError(_complaint(result))
        found = json.loads(line)
        first = found["t_pp"]  # its last step makes the first new token's logits
        return Timing(first, first if job.new == 1 else first + found["t_tg"])

    def start_command(self) -> tuple[list[str], dict[str, str]]:
        program = str(self._programs / "llama-completion")
        settings = [*self._settings, "-n", "1", "--temp", "0", "-no-cnv", "--no-display-prompt"]
        return [program, "-m", self._file, "-p", START_PROMPT, *settings], {}

    def close(self) -> None:
        """Nothing runs between jobs."""


def convert(programs: Path, source: Path, file_type: str) -> Path:
    """Another type of the same weights, by llama.cpp's own program, beside the source. Raises RuntimeError with its reason."""
    target = source.with_name(f"{file_type.lower()}.gguf")
    result = subprocess.run([programs / "llama-quantize", source, target, file_type], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(_complaint(result))
    return target


def _complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The line that says why, from where an assertion begins if it is one: a trace of calls follows that."""
    lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
    return next((line[line.index(ASSERTION) :] for line in lines if ASSERTION in line), lines[-1])[:200]
