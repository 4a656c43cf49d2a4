"""Recipes: the schema, the loader, and the shrunken form for a smoke test. Imports no torch."""

from spoutnik.recipe.distillation import DistillStage, LogitsStage
from spoutnik.recipe.judge import JudgeStage
from spoutnik.recipe.loading import check_models, find_recipe, is_data, load_recipe, parse_recipe, recipe_folders
from spoutnik.recipe.schema import (
    SAMPLE_KINDS,
    AnyStage,
    Balance,
    CorpusStage,
    DPOStage,
    EvalStage,
    ModelSpec,
    PretrainStage,
    Price,
    Recipe,
    ReportStage,
    RLStage,
    SampleStage,
    SFTStage,
    Source,
    TaskSpec,
    TracesStage,
)
from spoutnik.recipe.smoke import smoke
from spoutnik.recipe.teachers import TeacherPrice, TeacherSpec

__all__ = [
    "SAMPLE_KINDS",
    "AnyStage",
    "Balance",
    "CorpusStage",
    "DPOStage",
    "DistillStage",
    "EvalStage",
    "JudgeStage",
    "LogitsStage",
    "ModelSpec",
    "PretrainStage",
    "Price",
    "RLStage",
    "Recipe",
    "ReportStage",
    "SFTStage",
    "SampleStage",
    "Source",
    "TaskSpec",
    "TeacherPrice",
    "TeacherSpec",
    "TracesStage",
    "check_models",
    "find_recipe",
    "is_data",
    "load_recipe",
    "parse_recipe",
    "recipe_folders",
    "smoke",
]
