"""What tells the pages of one model from those of any other."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import torch
from torch import Tensor

from spoutnik.engine.kernels import build
from spoutnik.engine.kernels.operations import Program
from spoutnik.model.transformer import CausalLM


def fingerprint(model: CausalLM, program: Program) -> bytes:
    """32 bytes, different wherever a page may differ in a bit: all weights, the program, its tables and precision, the build, tiles.

    Reads all weights once, on torch's number of threads: about a second a gigabyte and thread.
    """
    tensors = {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers(), *(kept for kept, _ in program.vectors)]}
    digest = blake2b(digest_size=32)
    kernels = f"{build.fingerprint(build.compiler() or '')} {build.library().spoutnik_tiles()} {torch.__version__}"
    digest.update(f"{kernels} {program.precision} {model.config}\n".encode())
    for operation in program.operations:
        digest.update(bytes(operation))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for part in pool.map(_digest, tensors.values()):
            digest.update(part)
    return digest.digest()


def _digest(tensor: Tensor) -> bytes:
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return blake2b(content.data, person=str(tensor.dtype)[-16:].encode()).digest() + str(tuple(tensor.shape)).encode()
