"""Opens the data files of a recipe."""

from pathlib import Path

from neva_model.data.blend import BlendedSamples
from neva_model.data.joined import JoinedSamples
from neva_model.data.llava import LlavaDataset
from neva_model.data.loading.bad_samples import BadSampleReport
from neva_model.data.text import TextDataset
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import DataError, LlavaDataConfig, Recipe, RecipeError, format_value, listed_paths
from neva_recipes.plan.cost.schedule import run_steps, short_pass
from neva_recipes.run_directory.layout import DATA_CACHE
from neva_recipes.sources.indexed import is_indexed

__all__ = ["open_samples", "open_training_samples", "report_of", "skips_bad_samples", "whole_batches"]


def open_samples(recipe: Recipe, field: str, tokenizer: Tokenizer, run_dir: Path | str) -> JoinedSamples:
    """Return the samples of the files that a field names.

    Raises:
        DataError: A file or the tokenizer cannot be used.
        RecipeError: The field names no file.
    """
    data, cache = recipe.data, Path(run_dir) / DATA_CACHE
    named = listed_paths(data.data_path if field == "data.data_path" else data.validation_data_path)
    if not named:
        raise RecipeError(f"{field} is not set: it names the file to read, or several")
    if isinstance(data, LlavaDataConfig):
        assert recipe.model.vision is not None, "require_valid lets no image data through without a vision tower"
        return JoinedSamples([LlavaDataset(data, name, recipe.model.vision, tokenizer, cache) for name in named])
    return JoinedSamples([TextDataset(name, data.sequence_length, tokenizer, cache) for name in named])


def open_training_samples(recipe: Recipe, tokenizer: Tokenizer, run_dir: Path | str) -> JoinedSamples | BlendedSamples:
    """Return the samples of the training files; of indexed datasets those of the whole training, as they are drawn.

    Raises:
        DataError: A file or the tokenizer cannot be used.
        RecipeError: The recipe names no training file.
    """
    joined = open_samples(recipe, "data.data_path", tokenizer, run_dir)
    data, files = recipe.data, [file for file in joined.files if isinstance(file, TextDataset)]
    is_drawn = bool(files) and all(is_indexed(Path(file.data_path)) for file in files)
    if isinstance(data, LlavaDataConfig) or not is_drawn or data.dataloader_type == "single":
        return joined
    steps = run_steps(recipe, joined.one_pass)
    assert steps is not None, "the number of samples is known"
    return BlendedSamples(
        files,
        data.blend,
        sequence_length=data.sequence_length,
        count=steps * data.global_batch_size,
        seed=recipe.trainer.seed,
        cache_folder=Path(run_dir) / DATA_CACHE,
    )


def whole_batches(recipe: Recipe, count: int) -> int:
    """Return the samples of a single pass that fill global batches.

    Raises:
        DataError: They are fewer than the run needs.
    """
    if problem := short_pass(recipe, count):
        raise DataError(
            f"{format_value(recipe.data.data_path)}: {problem}: ask for less, or use data.dataloader_type=cyclic"
        )
    return count // recipe.data.global_batch_size * recipe.data.global_batch_size


def skips_bad_samples(recipe: Recipe) -> bool:
    """Return whether bad samples are skipped rather than an error."""
    return isinstance(recipe.data, LlavaDataConfig) and recipe.data.on_bad_sample == "skip"


def report_of(run_dir: Path | str) -> BadSampleReport:
    """Return the report of a run that names its bad samples."""
    return BadSampleReport(Path(run_dir) / "bad_samples.jsonl")
