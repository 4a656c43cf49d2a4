"""Times the ways of running routed experts: forward without gradients, and forward with backward, on the machine at hand.

    python benchmarks/experts.py [--threads N] [--device cpu]

Prints the best of several runs in milliseconds, of which the fastest is starred, and what the model chooses for itself.
"""

import argparse
import time
from collections.abc import Callable

import torch

from spoutnik.model.experts import IMPLEMENTATIONS, choose

# tokens, hidden size, expert width, experts, experts per token: decoding one and many rows, training small models, wide experts
SHAPES = [
    (1, 192, 96, 8, 2), (64, 192, 96, 8, 2), (2048, 192, 96, 8, 2), (8192, 192, 96, 8, 2), (8, 256, 128, 16, 4), (2048, 256, 128, 16, 4),
    (8192, 256, 128, 16, 4), (64, 512, 256, 32, 4), (2048, 512, 256, 32, 4),
]  # fmt: skip


def best_ms(work: Callable[[], object], device: str, at_least: int = 4, budget_s: float = 0.4) -> float:
    """The shortest of several runs, the first one apart: on a busy machine the least disturbed run tells most."""
    work()
    times: list[float] = []
    while len(times) < at_least or sum(times) < budget_s:
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - start)
        if sum(times) > 10 * budget_s:
            break
    return min(times) * 1e3


def measure(shape: tuple[int, int, int, int, int], dtype: torch.dtype, device: str) -> tuple[dict[str, float], dict[str, float], str]:
    """Milliseconds of each implementation without and with backward, and the name that `choose` picks."""
    tokens, hidden_size, width, experts, top_k = shape
    hidden_TD = torch.randn(tokens, hidden_size, dtype=dtype, device=device, requires_grad=True)
    gate_up = torch.randn(experts, 2 * width, hidden_size, device=device).mul(0.02).to(dtype).requires_grad_()
    down = torch.randn(experts, hidden_size, width, device=device).mul(0.02).to(dtype).requires_grad_()
    experts_TK = torch.rand(tokens, experts, device=device).topk(top_k, -1).indices
    weights_TK = torch.rand(tokens, top_k, device=device)
    forward, both = {}, {}
    for name, run in IMPLEMENTATIONS.items():

        def infer(run: Callable[..., torch.Tensor] = run) -> None:
            with torch.no_grad():
                run(hidden_TD, experts_TK, weights_TK, gate_up, down)

        def train(run: Callable[..., torch.Tensor] = run) -> None:
            out_TD = run(hidden_TD, experts_TK, weights_TK, gate_up, down)
            torch.autograd.grad(out_TD, (hidden_TD, gate_up, down), torch.ones_like(out_TD))

        forward[name], both[name] = best_ms(infer, device), best_ms(train, device)
    return forward, both, choose(hidden_TD, experts_TK, gate_up, down)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.device}; forward / forward and backward, ms")
    print(
        f"{'dtype':9} {'tokens':>6} {'hidden':>6} {'width':>5} {'experts':>7} {'top':>3}  " + " ".join(f"{n:>17}" for n in IMPLEMENTATIONS)
    )
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            forward, both, chosen = measure(shape, dtype, arguments.device)
            cells = []
            for name in IMPLEMENTATIONS:
                stars = ["*" if times[name] == min(times.values()) else " " for times in (forward, both)]
                cells.append(f"{forward[name]:7.2f}{stars[0]}/{both[name]:7.2f}{stars[1]}")
            tokens, hidden_size, width, experts, top_k = shape
            sizes = f"{tokens:6} {hidden_size:6} {width:5} {experts:7} {top_k:3}"
            print(f"{str(dtype)[6:]:9} {sizes}  " + " ".join(f"{cell:>17}" for cell in cells) + f"  {chosen}", flush=True)


if __name__ == "__main__":
    main()
