"""What is printed of a model, each number with the components that it is the sum of."""

from spoutnik.plan.components import Counts, cache_values
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.shape import Model


def model_figures(model: Model, counted: Counts, source: str = "") -> dict[str, Figure]:
    """Parameters and operations by name; `source` says where the sizes are from."""
    origin = Input("sizes", model.model_type, "", source or "the model's own configuration", "disclosed")
    main = [part for part in counted.components if not part.mtp]
    held = tuple(_part(part.name, "parameters", part.parameters, "parameters", origin) for part in main if part.parameters)
    used = tuple(_part(part.name, "active", part.active_parameters, "parameters", origin) for part in main if part.active_parameters)
    done = tuple(_part(part.name, "forward", part.forward, "FLOP/token", origin) for part in main if part.forward)
    done_full = tuple(_part(part.name, "forward_full", part.forward_full, "FLOP/token", origin) for part in main if part.forward_full)
    convention = "A multiply-add is 2; with a causal mask; backward is twice forward."
    found = [
        Figure("params_total", counted.parameters, "parameters", _sum(held), held, "Without multi-token prediction layers."),
        Figure("params_active", counted.active_parameters, "parameters", _sum(used), used, "The embedding table counts whole."),
        Figure("flops_per_token", counted.training(), "FLOP/token", f"3 * ({_sum(done)})", done, convention),
        Figure("flops_per_token_full", counted.training(causal=False), "FLOP/token", f"3 * ({_sum(done_full)})", done_full,
               "No mask: every key counts for every query."),
    ]  # fmt: skip
    if counted.mtp_parameters:
        extra = next(part for part in counted.components if part.mtp)
        more = _part(extra.name, "forward", extra.forward, "FLOP/token", origin)
        found.append(_part(extra.name, "mtp_parameters", extra.parameters, "parameters", origin, plain=True))
        found.append(Figure("flops_per_token_mtp", counted.training(mtp=True), "FLOP/token", f"3 * ({_sum((*done, more))})", (*done, more)))
    share = 1 - 6 * counted.active_parameters / counted.training()
    found.append(Figure("beyond_6n", share, "share", "1 - 6 * params_active / flops_per_token", (found[1], found[2])))
    found.append(
        Figure("cache_bytes_per_token", 2.0 * cache_values(model), "bytes/token", "2 bytes * cached numbers of all layers", (origin,))
    )
    return {figure.name: figure for figure in found}


def _part(name: str, kind: str, value: float, unit: str, origin: Input, plain: bool = False) -> Figure:
    return Figure(kind if plain else f"{kind}.{name.replace(' ', '_')}", value, unit, "from the sizes", (origin,))


def _sum(parts: tuple[Figure, ...]) -> str:
    return " + ".join(part.name for part in parts)
