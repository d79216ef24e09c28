"""Reports or refuses the samples that the index has found unusable, before training begins."""

import os

import numpy as np

from neva_model.data.joined import JoinedSamples, Unusable
from neva_model.data.loading.bad_samples import BadSampleReport
from neva_model.data.sample import BadSample
from neva_recipes.config import DataError, how_many
from neva_recipes.prompts.samples import KINDS, SKIPS_IT, SKIPS_SUCH, kinds_lost

__all__ = ["check_samples"]

_NAMED = 3
"""Number of bad samples named in a refusal."""

_SEE = "bad_samples.jsonl in the run directory says why"


def check_samples(samples: JoinedSamples, report: BadSampleReport, *, skips: bool, replaces: bool) -> int:
    """Report the samples that cannot be used, or refuse them.

    Args:
        samples: The samples of the indexed files.
        report: The report that names them.
        skips: Whether bad samples are skipped, like samples that teach nothing.
        replaces: Whether other samples of the same kind replace unusable ones, as in training; otherwise one usable
            sample is enough.

    Returns:
        The number of usable samples.

    Raises:
        DataError: There are bad samples that may not be skipped, or all samples are unusable; or in training all
            samples with an image, or all without one.
    """
    unusable = list(samples.unusable())
    bad = [error for _, error in unusable if not error.teaches_nothing]
    if bad and not skips:
        raise DataError(_refusal(samples, bad))
    if not unusable:
        return len(samples)
    report.add(*(error for _, error in unusable))
    _require_kinds(samples, unusable, in_training=replaces)
    if os.environ.get("RANK", "0") == "0":
        counted = (
            _counted(len(bad), "is bad", "are bad"),
            _counted(len(unusable) - len(bad), "teaches nothing", "teach nothing"),
        )
        said = f"{samples.data_path}: of {how_many(len(samples), 'sample')} {' and '.join(filter(None, counted))}"
        print(f"{said}: passed over, and named in bad_samples.jsonl", flush=True)
    return len(samples) - len(unusable)


def _refusal(samples: JoinedSamples, bad: list[BadSample]) -> str:
    if len(bad) == 1:
        return f"{bad[0]}; {SKIPS_IT}" if len(samples) > 1 else f"{bad[0]}"
    named = "; ".join(str(error).removeprefix(f"{samples.data_path}: ") for error in bad[:_NAMED])
    more = "; ..." if len(bad) > _NAMED else ""
    return f"{samples.data_path}: {len(bad):,} of {len(samples):,} samples are bad ({SKIPS_SUCH}): {named}{more}"


def _require_kinds(samples: JoinedSamples, unusable: list[Unusable], *, in_training: bool) -> None:
    is_usable = np.ones(len(samples), dtype=bool)
    is_usable[[position for position, _ in unusable]] = False
    there, usable = (np.unique(kinds).tolist() for kinds in (samples.has_image, samples.has_image[is_usable]))
    lost = kinds_lost(there, usable, in_training=in_training)
    if not lost:
        return
    kind = max(lost)
    total = np.count_nonzero(samples.has_image == kind) if in_training else len(samples)
    which = f" {KINDS[kind]}" if in_training else ""
    every = f"every one of the {total:,} samples" if total > 1 else "the one sample"
    raise DataError(f"{samples.data_path}: {every}{which} is unusable: {_SEE}")


def _counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}" if number else ""
