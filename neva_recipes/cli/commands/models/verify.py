"""Checks whether checkpoints and exported models are as they were written: `nemo-run verify`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from neva_recipes.cli.arguments import StrictParser, add_runs_dir
from neva_recipes.cli.commands.models.tools import model_path
from neva_recipes.config import CheckpointError
from neva_recipes.run_directory.layout import CHECKPOINTS
from neva_recipes.run_directory.names import INFORMATION_FILE, list_checkpoints
from neva_recipes.run_directory.stages import PIPELINE_FILE, STAGES, stage_name
from neva_recipes.storage.checkpoints import next_best, read_record, what_is_wrong
from neva_recipes.storage.exports import DIGESTS_FILE, export_digests, what_is_wrong_with_export
from neva_recipes.terminal import print_text

__all__ = ["verify_command"]


def verify_command(argv: Sequence[str]) -> int:
    """Read every byte of checkpoints: `nemo-run verify RUN`."""
    parser = StrictParser(
        "nemo-run verify",
        description=(
            "Whether each checkpoint of a run, or of a pipeline's stages, is as it was\n"
            "written: reads every file and compares its digest. Also for one checkpoint and\n"
            "for an exported model. What is damaged ends with exit code 2."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="name of a run, or a run, checkpoint or exported directory")
    add_runs_dir(parser)
    arguments = parser.parse(argv)
    damaged: list[str] = []
    run = Path(model_path(arguments.run, arguments.runs_dir))
    for path, problem, remark in _looks(run):
        print_text(f"{_title(run, path)}  {'whole' if problem is None else 'damaged'}{remark}")
        if problem is not None:
            damaged.append(problem)
    if len(damaged) > 1:
        raise CheckpointError(f"{len(damaged)} are damaged, the last one: {damaged[-1]}")
    if damaged:
        raise CheckpointError(damaged[0])
    return 0


def _looks(path: Path) -> Iterator[tuple[Path, str | None, str]]:
    """Yield each checkpoint or export in a directory, what is wrong with it, and a remark."""
    if (path / INFORMATION_FILE).exists() or list_checkpoints(path.parent).count(path):
        yield _look_at_checkpoint(path)
        return
    if (path / DIGESTS_FILE).exists():
        problem = what_is_wrong_with_export(path)
        yield path, problem, "" if problem else f", {len(export_digests(path))} files"
        return
    folders = [path / CHECKPOINTS, *sorted(path.glob(f"{STAGES}/*/{CHECKPOINTS}"))]
    found = [checkpoint for folder in folders for checkpoint in list_checkpoints(folder)]
    if not found:
        raise CheckpointError(f"{path}: holds no checkpoint and no {DIGESTS_FILE}: nothing to compare with")
    yield from map(_look_at_checkpoint, found)


def _title(run: Path, checkpoint: Path) -> str:
    """Return the name of a checkpoint or an export; `STAGE/step-N` in a pipeline."""
    stage = stage_name(checkpoint.parent.parent) if (run / PIPELINE_FILE).is_file() else None
    return checkpoint.name if stage is None else f"{stage}/{checkpoint.name}"


def _look_at_checkpoint(path: Path) -> tuple[Path, str | None, str]:
    problem = what_is_wrong(path, with_shards=True)
    if problem is not None:
        return path, f"{problem}; {next_best(path)}", f": {problem}"
    record = read_record(path)
    if not record["digests"]:
        return path, None, " as far as the sizes of its files tell: an older version has saved it without digests"
    return path, None, f", {len(record['files'])} files, {sum(record['files'].values()) / 2**20:,.1f} MiB"
