"""Shrinks a recipe until every stage runs in seconds: it proves that the parts fit together, not that the model learns."""

from typing import Any

from spoutnik.recipe.schema import Recipe

CEILINGS = {
    "steps": 3,
    "tokens": 30_000,
    "batch_tokens": 512,
    "prompts": 2,
    "group": 4,
    "problems": 8,
    "max_new_tokens": 32,
    "overlong_cache": 8,
    "sampling_rounds": 2,
    "batch_size": 4,
    "samples_per_problem": 2,
    "text_characters": 2000,
}


def smoke(recipe: Recipe) -> Recipe:
    """The same stages with every count clipped to CEILINGS and models at most 2 layers deep.

    What is sampled or written is kept whether right or wrong, for a model that learnt nothing gets nothing right.
    """
    content = recipe.model_dump(by_alias=True, exclude_unset=True)
    content["name"] = f"{recipe.name}-smoke"
    return Recipe.model_validate(_clip(content))


def _clip(value: Any) -> Any:
    if isinstance(value, list):
        return [_clip(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "pretrain":
        value = {"batch_tokens": CEILINGS["batch_tokens"], "sequence_length": 256, **value}
    clipped = {key: min(item, CEILINGS[key]) if key in CEILINGS and isinstance(item, int) else _clip(item) for key, item in value.items()}
    if "batch_tokens" in clipped and "sequence_length" in clipped:
        clipped["batch_tokens"] = max(clipped["batch_tokens"] // clipped["sequence_length"], 1) * clipped["sequence_length"]
    if clipped.get("kind") == "sample":
        clipped["keep"] = "any-pairs" if clipped.get("keep") in ("pairs", "any-pairs") else "all"
    if clipped.get("kind") == "traces":
        clipped["keep"] = "all"
    if clipped.get("kind") == "judge":
        clipped |= {"problems": CEILINGS["problems"]} | ({"keep_from": 0} if clipped.get("scale") != "a/b" else {})
    if "sampling_rounds" in clipped and "curriculum" in clipped:
        clipped["sampling_rounds"] = 1
    if "depth" in clipped:
        clipped["depth"] = min(clipped["depth"], 2)
    if "minibatches" in clipped and clipped.get("prompts", 1) % clipped["minibatches"]:
        clipped["minibatches"] = 1
    clipped.pop("minutes", None)
    return clipped
