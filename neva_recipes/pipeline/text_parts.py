"""Parts of a text that later stages take and that get no document, told before any stage runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiddle as fdl

from neva_recipes.config import DataError, UserError, expand_path, how_many, listed_paths, path_is
from neva_recipes.pipeline.flow import Pipeline, Stage
from neva_recipes.pipeline.text import TokenizeText
from neva_recipes.sources.indexed import INDEX_ENDING

if TYPE_CHECKING:
    from neva_recipes.token_data import Lacking

__all__ = ["unmade_parts"]


def unmade_parts(stage: Stage, pipeline: Pipeline) -> Iterator[str]:
    """Yield a line for each dataset that a stage will not make of its text, and that another stage takes.

    Text that is not here yet, and text that cannot be read, are left to other checks and to the stage.
    """
    if fdl.get_callable(stage.work) is not TokenizeText:
        return
    takers = {
        output.file: taker.name
        for taker in pipeline.stages
        for _, output in taker.inputs()
        if output.stage == stage.name and output.file is not None
    }
    work = stage.work
    named = work.files if isinstance(work.files, list) else [work.files]
    if not takers or not all(isinstance(value, str | Path) for value in named):
        return
    from neva_recipes.token_data import PARTS, split_weights  # most pipelines need none of it

    try:
        split = split_weights(work.split)
    except DataError as error:
        yield str(error)
        return
    taken = {part: takers[f"{part}{INDEX_ENDING}"] for part in PARTS if f"{part}{INDEX_ENDING}" in takers}
    for part, weight in zip(PARTS, split, strict=True):
        if part in taken and not weight:
            yield f"split={work.split}: gives no weight to {part}, which {taken[part]} takes: expected such as 98,1,1"
    lacking = _lacking(work, split)
    if lacking is None:
        return
    for part in (part for part in lacking.parts if part in taken):
        none = f"none of {how_many(lacking.documents, 'document')} falls into {part}, which {taken[part]} takes"
        other = f"set {stage.name}.split={lacking.other}" if lacking.other else "give it more text"
        yield f"split={work.split}: {none}: {other}"


def _lacking(work: Any, split: Sequence[float]) -> "Lacking | None":
    from neva_recipes.token_data import lacking_parts
    from neva_recipes.tokenizers import TEXT_KEYS

    paths = [expand_path(name) for name in listed_paths(work.files)]
    if not all(map(path_is, paths)):
        return None
    try:
        return lacking_parts(paths, split, json_keys=work.json_keys.split(",") if work.json_keys else TEXT_KEYS)
    except UserError:
        return None
