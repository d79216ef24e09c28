"""Removes files that no run needs any more: `nemo-run gc`."""

from collections.abc import Sequence

from neva_recipes.cli.arguments import StrictParser, add_runs_dir
from neva_recipes.cli.commands.runs import parse_age
from neva_recipes.terminal import one_line, print_text

__all__ = ["gc_command"]


def gc_command(argv: Sequence[str]) -> int:
    """List what can be removed, and remove it if asked to: `nemo-run gc [--older-than AGE] [--yes]`."""
    parser = StrictParser(
        "nemo-run gc",
        description=(
            "What can be removed: what killed launches have left and, with --older-than, data\n"
            "caches and all checkpoints but the newest and the best by val_loss, of runs that\n"
            "ended that long ago and that no other run's recipe names. Removes nothing\n"
            "without --yes."
        ),
    )
    parser.add_argument("--older-than", metavar="AGE", help="of runs that ended that long ago, such as 30d or 12h")
    parser.add_argument("--yes", action="store_true", help="remove it")
    add_runs_dir(parser)
    arguments = parser.parse(argv)
    age = None if arguments.older_than is None else parse_age(arguments.older_than)

    from executors import find_leftovers, remove_leftovers

    leftovers = find_leftovers(arguments.runs_dir, age)
    if not leftovers:
        print_text(f"nothing to remove in {arguments.runs_dir}")
        return 0
    folder, freed, width = arguments.runs_dir.resolve(), 0, max(len(leftover.what) for leftover in leftovers)
    outcomes = remove_leftovers(leftovers) if arguments.yes else ((leftover, None) for leftover in leftovers)
    for leftover, reason in outcomes:
        freed += 0 if reason else leftover.size
        note = f"  (kept: {reason})" if reason else ""
        size, path = _size(leftover.size), one_line(str(leftover.path.relative_to(folder)))
        print_text(f"{size:>9}  {leftover.what:<{width}}  {path}{note}")
    print(f"{_size(freed)} {'freed' if arguments.yes else 'can be freed: add --yes to remove this'}")
    return 0


def _size(size: int) -> str:
    """Return a number of bytes in the largest unit that gives at least 1."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
