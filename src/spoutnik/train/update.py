"""One guarded optimiser step: clip, check that everything is finite, skip and keep the evidence if not."""

import math

import torch
from safetensors.torch import save_file

from spoutnik.errors import UserError
from spoutnik.run.context import StageContext
from spoutnik.train.state import TrainState


def apply_update(
    state: TrainState,
    loss: float,
    scale: float,
    grad_clip: float,
    max_bad_steps: int,
    context: StageContext,
    batch: dict[str, torch.Tensor],
) -> float:
    """Clips the gradients that lie in the model to `grad_clip` and steps the optimiser; returns the norm before clipping.

    A non-finite loss or gradient changes no weight and saves `batch` beside the stage's state; `state.bad_steps` counts them, and
    `max_bad_steps` in a row raise UserError.
    """
    parameters = [parameter for parameter in state.model.parameters() if parameter.grad is not None]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, grad_clip)) if parameters else 0.0
    if math.isfinite(loss) and math.isfinite(norm):
        state.optimizer.step(scale)
        state.bad_steps = 0
    else:
        state.optimizer.zero_grad()
        state.bad_steps += 1
        file = context.directory / f"bad-batch-{state.step + 1:08d}-{state.bad_steps}.safetensors"
        save_file({name: tensor.cpu().contiguous() for name, tensor in batch.items()}, file)
        context.log("warning", step=state.step + 1, text=f"loss {loss}, gradient norm {norm}: step skipped, batch saved as {file.name}")
        if state.bad_steps >= max_bad_steps:
            raise UserError(
                f"{state.bad_steps} steps in a row had a non-finite loss or gradient (last loss {loss}); the batches are in "
                f"{context.directory}: lower learning_rate or grad_clip, or look for a bad document in them."
            )
    return norm
