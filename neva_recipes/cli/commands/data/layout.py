"""Says what is there of LLaVA's published data: `nemo-run data layout DIR`."""

from collections.abc import Iterator, Sequence

from neva_recipes.cli.arguments import StrictParser, path_argument
from neva_recipes.cli.commands.data._outputs import require_folder
from neva_recipes.cli.commands.data._progress import Teller
from neva_recipes.config import how_many
from neva_recipes.data_tools.layout import ImageFolder, Standing, looked_at
from neva_recipes.interruption import tell_of_interruption
from neva_recipes.terminal import fold, one_line, print_document

__all__ = ["layout_action"]

_MISSING = 1
"""Exit code where something is missing."""

_WIDTH = 80


def layout_action(argv: Sequence[str]) -> int:
    """Say what is there, what is missing, and where it comes from: `nemo-run data layout DIR`."""
    given = _parser().parse(argv)
    require_folder("DIR", given.folder)
    teller = Teller()
    try:
        found = list(
            looked_at(given.folder, lambda count: teller.tell(lambda _: f"{how_many(count, 'sample')} looked at"))
        )
    except KeyboardInterrupt:
        tell_of_interruption("stopped")
        raise
    finally:
        teller.end()
    print_document("\n".join("".join(f"{line}\n" for line in _lines(standing)) for standing in found))
    return 0 if all(standing.is_complete for standing in found) else _MISSING


def _parser() -> StrictParser:
    parser = StrictParser(
        "nemo-run data layout",
        description=(
            "Say what is there and what is missing of LLaVA's published data, LLaVA-Pretrain\n"
            "and llava_v1_5_mix665k, and where it comes from. Nothing is downloaded. The exit\n"
            "code is 0 if all of it is there, and 1 if something is missing."
        ),
    )
    parser.add_argument(
        "folder", metavar="DIR", type=path_argument, help="folder of the data, as LLaVA's playground/data"
    )
    return parser


def _lines(standing: Standing) -> Iterator[str]:
    published = standing.published
    yield f"{published.name}, for {published.stage}"
    is_there = standing.samples is not None
    said = f"there, {how_many(standing.samples or 0, 'sample')}" if is_there else "missing"
    yield from _entry(str(standing.file), said)
    if not is_there:
        yield from _from(published.origin, "")
    for part in standing.folders:
        yield from _entry(str(part.path), _standing_of(part))
        if not part.is_complete:
            yield from _from(part.published.origin, part.published.how)
    if standing.elsewhere:
        yield from _entry(f"{how_many(standing.elsewhere, 'image')} of no folder above", "see nemo-run data check")


def _entry(name: str, said: str) -> Iterator[str]:
    yield from fold(one_line(f"{name}: {said}"), _WIDTH, "  ", "    ")


def _from(origin: str, how: str) -> Iterator[str]:
    yield f"    from {origin}"
    if how:
        yield f"    {how}"


def _standing_of(part: ImageFolder) -> str:
    if part.files is not None:
        return f"there, {how_many(part.files, 'file')}" if part.is_there else "missing"
    if not part.is_there:
        return f"missing, {how_many(part.named, 'image')} named" if part.named else "not there, and not named"
    if not part.missing:
        return f"there, all {how_many(part.named, 'image')} named"
    said = f"{part.missing:,} of {how_many(part.named, 'image')} named missing, the first {part.first_missing}"
    if not part.otherwise:
        return said
    return f"{said}; {part.otherwise:,} are there under another ending (nemo-run data check --fix)"
