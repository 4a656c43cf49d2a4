"""What tells the pages of one model from those of any other."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import torch
from torch import Tensor

from spoutnik.engine.kernels import build
from spoutnik.engine.kernels.program import Program
from spoutnik.model.transformer import CausalLM


def fingerprint(model: CausalLM, program: Program) -> bytes:
    """32 bytes, different wherever a page may differ in a bit: every weight, the program, its tables and precision, the kernels' build.

    Reads all weights once, on torch's number of threads: about a second a gigabyte and thread.
    """
    tensors = {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers(), *(kept for kept, _ in program.vectors)]}
    digest = blake2b(digest_size=32)
    digest.update(f"{build.fingerprint(build.compiler() or '')} {torch.__version__} {program.precision} {model.config}\n".encode())
    for operation in program.operations:
        digest.update(bytes(operation))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for part in pool.map(_digest, tensors.values()):
            digest.update(part)
    return digest.digest()


def _digest(tensor: Tensor) -> bytes:
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return blake2b(content.data, person=str(tensor.dtype)[-16:].encode()).digest() + str(tuple(tensor.shape)).encode()
