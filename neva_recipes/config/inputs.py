"""The files a recipe names, looked at before a job is started."""

from pathlib import Path

from neva_recipes.config.data import LlavaDataConfig
from neva_recipes.config.recipe import Recipe

__all__ = ["missing_inputs"]


def missing_inputs(recipe: Recipe) -> list[str]:
    """Return what keeps a recipe from being run here, a line each: inputs that are not set, and files not there.

    Names that may also stand for something on the Hugging Face hub are left to the worker.
    """
    problems = []
    data, model = recipe.data, recipe.model
    if data.data_path is None:
        problems.append("data.data_path is not set: add data.data_path=FILE")
    if data.tokenizer is None and model.language.from_pretrained is None:
        problems.append("data.tokenizer is not set, nor model.language.from_pretrained: add data.tokenizer=PATH")
    for field, path in (("data_path", data.data_path), ("validation_data_path", data.validation_data_path)):
        if path is not None and not Path(path).is_file():
            problems.append(f"data.{field}={path}: no such file: set it to the one to read")
    if isinstance(data, LlavaDataConfig) and data.image_folder and not Path(data.image_folder).is_dir():
        problems.append(f"data.image_folder={data.image_folder}: no such folder: set it to that of the images")
    weights = {"model.language": model.language, "model.vision": model.vision, "model.projector": model.projector}
    names = {f"{part}.from_pretrained": node.from_pretrained for part, node in weights.items() if node is not None}
    for field, name in {"data.tokenizer": data.tokenizer, **names}.items():
        if name is not None and name.startswith(("/", "./", "../", "~")) and not Path(name).exists():
            problems.append(f"{field}={name}: no such file or folder")
    return problems
