"""What a validation logs: the loss of all its files together and of each, and the perplexity of text."""

import math
from collections.abc import Sequence

from neva_recipes.run_directory.metrics import VAL_LOSS, VAL_PERPLEXITY, metric_of_file, validation_names

__all__ = ["validation_metrics"]


def validation_metrics(sums: Sequence[Sequence[float]], paths: Sequence[str], *, is_text: bool) -> dict[str, float]:
    """Return the metrics of a validation.

    Args:
        sums: The summed loss and the supervised tokens of each file. [files, 2]
        paths: The files.
        is_text: Whether they are text, which has a perplexity: the exponential of its loss.
    """
    whole = sum(loss for loss, _ in sums), sum(tokens for _, tokens in sums)
    parts = list(zip(validation_names(paths), sums, strict=True)) if len(paths) > 1 else []
    metrics = {}
    for name, (loss, tokens) in [(None, whole), *parts]:
        if tokens:  # a validation of some batches may leave out a file
            metrics[metric_of_file(VAL_LOSS, name)] = loss / tokens
            if is_text:
                metrics[metric_of_file(VAL_PERPLEXITY, name)] = _exponential(loss / tokens)
    return metrics


def _exponential(loss: float) -> float:
    return math.exp(loss) if loss < math.log(float.fromhex("0x1p1023")) else math.inf
