"""A model's parameters by where parallelism puts them: what every replica holds of a layer, routed experts, and the two ends."""

from dataclasses import dataclass

from spoutnik.plan.components import counts, matrices_per_expert
from spoutnik.plan.shape import Model


@dataclass(frozen=True)
class Pieces:
    """Counts of parameters. Multi-token prediction layers count as layers."""

    layers: int
    dense_per_layer: float
    """Of one layer, all but routed experts; the mean over the layers, with the last norm."""
    routed: float
    """All routed experts of all layers."""
    embedding: int
    head: int
    """0 where the head is the embedding."""
    joined: int
    """The matrices that join multi-token prediction layers to the model."""

    @property
    def total(self) -> float:
        """All parameters."""
        return self.layers * self.dense_per_layer + self.routed + self.embedding + self.head + self.joined


def pieces(model: Model) -> Pieces:
    """The counts of a model; together they are those of its components."""
    found = counts(model)
    layers = model.num_hidden_layers + model.num_nextn_predict_layers
    routed_layers = sum(model.layer_has_experts(layer) for layer in range(layers))
    routed = routed_layers * model.n_routed_experts * matrices_per_expert(model)
    embedding, head = found.part("embedding").parameters, found.part("head").parameters
    joined = model.num_nextn_predict_layers * 2 * model.hidden_size**2
    dense = found.parameters + found.mtp_parameters - routed - embedding - head - joined
    return Pieces(layers, dense / layers, routed, embedding, head, joined)
