"""Counts the samples of a recipe's data files, and checks every record of them."""

from pathlib import Path
from typing import NamedTuple

from neva_model.data.joined import JoinedSamples
from neva_model.data.loading._checks import check_samples
from neva_model.data.loading._shared import tell_of_shared
from neva_model.data.loading.opening import (
    open_samples,
    open_training_samples,
    report_of,
    skips_bad_samples,
    whole_batches,
)
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import Recipe

__all__ = ["SampleCounts", "count_samples"]


class SampleCounts(NamedTuple):
    """Samples of the training files.

    Attributes:
        one_pass: Samples of one pass; unusable samples count, since others replace them.
        usable: Usable samples, as far as can be seen without encoding texts; images are decoded as time allows.
    """

    one_pass: int
    usable: int


def count_samples(recipe: Recipe, tokenizer: Tokenizer, *, run_dir: Path | str) -> SampleCounts:
    """Check every record of a recipe's data files, and count the samples of the training files.

    It finds every error that shows without encoding texts, damaged images among those that there is time to decode, so
    that such an error does not come up in the middle of the training or in its validation. A single pass consists of
    whole global batches, so samples that do not fill the last one do not count.

    Args:
        recipe: The recipe to train.
        tokenizer: The model's tokenizer.
        run_dir: Directory for the report on bad samples, and for cached indices and tokens.

    Raises:
        DataError: A file cannot be used, it has bad samples and data.on_bad_sample=error, or a single pass has less
            than one global batch.
        RecipeError: The recipe names no training file.
    """
    samples = open_training_samples(recipe, tokenizer, run_dir)
    usable = samples.one_pass
    if isinstance(samples, JoinedSamples):
        usable = check_samples(samples, report_of(run_dir), skips=skips_bad_samples(recipe), replaces=True)
    if recipe.data.validation_data_path is not None:
        validation = open_samples(recipe, "data.validation_data_path", tokenizer, run_dir)
        check_samples(validation, report_of(run_dir), skips=skips_bad_samples(recipe), replaces=False)
        tell_of_shared(recipe, samples, Path(run_dir))
    one_pass = samples.one_pass
    if recipe.data.dataloader_type == "single":
        one_pass = whole_batches(recipe, one_pass)
    return SampleCounts(one_pass, usable)
