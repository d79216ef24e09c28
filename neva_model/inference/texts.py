"""`nemo-run generate`: continues texts as the model would, one on the terminal or many into a file."""

import argparse
import json
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neva_model.inference.options import Sampling
from neva_model.progress import ProgressLine
from neva_model.startup import prepare_command
from neva_recipes.config import DataError, ParallelConfig, UserError
from neva_recipes.sources.prompts import PROMPT, read_prompts
from neva_recipes.storage.exports import require_new, writing_errors

if TYPE_CHECKING:
    from neva_model.inference.continuing import Continuation
    from neva_model.inference.opening import OpenModel

__all__ = ["main"]


class _Asked(NamedTuple):
    """What the command is to do.

    Attributes:
        run: A run, checkpoint or Hugging Face directory.
        tokenizer: Where a run's tokenizer is now.
        prompts: The texts to continue.
        is_one: Whether they are a single --prompt, which is printed as text.
        add_bos: Whether the token that begins a text comes first; `None` does as training did, or as the tokenizer of
            a Hugging Face directory does.
        sampling: How tokens are chosen.
        batch_size: Most prompts continued at once.
        output: The file of the results; `None` prints them.
    """

    run: Path
    tokenizer: str | None
    prompts: list[str]
    is_one: bool
    add_bos: bool | None
    sampling: Sampling
    batch_size: int
    output: Path | None


def main(arguments: Sequence[str]) -> int:
    """Continue texts.

    Args:
        arguments: A run, checkpoint or Hugging Face directory, and flags.

    Returns:
        The exit code.

    Raises:
        UserError: The model, a prompt or a flag cannot be used.
    """
    options = _parse(arguments)
    if options.greedy and options.temperature:
        raise UserError(f"--greedy and --temperature={options.temperature:g}: leave one of them out")
    asked = _Asked(
        run=options.run,
        tokenizer=options.tokenizer,
        prompts=list(options.prompt) if options.prompts is None else read_prompts(options.prompts),
        is_one=options.prompts is None and len(options.prompt) == 1,
        add_bos=options.add_bos,
        sampling=Sampling(
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            seed=options.seed,
        ),
        batch_size=options.batch_size,
        output=options.output,
    )
    parallel = ParallelConfig(tensor_model_parallel_size=options.tp, pipeline_model_parallel_size=options.pp)
    if asked.output is not None:
        require_new(asked.output, "file")
    prepare_command()
    from neva_model.inference.ranks import run_on_ranks

    return run_on_ranks(_generate, parallel, asked)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nemo-run generate", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompt", action="append", default=[])
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--tokenizer")
    parser.add_argument("--add-bos", action=argparse.BooleanOptionalAction)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--max-new-tokens", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--pp", type=int, default=1)
    return parser.parse_args(arguments)


def _generate(parallel: ParallelConfig, asked: _Asked) -> None:
    """Continue the prompts on this rank; the first one prints and writes."""
    import torch

    from neva_model.inference.continuing import continue_text, continue_texts
    from neva_model.inference.opening import open_model

    # No template, for that of its family may need tokens that the tokenizer has not.
    opened = open_model(asked.run, "plain", asked.tokenizer, parallel)
    prompts = [_tokens(opened, asked, number) for number in range(len(asked.prompts))]
    is_first = torch.distributed.get_rank() == 0
    if asked.is_one and asked.output is None:
        for piece in continue_text(opened, prompts[0], asked.sampling):
            if is_first:
                print(piece, end="", flush=True)
        if is_first:
            print(flush=True)
        return
    results = continue_texts(opened, prompts, sampling=asked.sampling, batch_size=asked.batch_size)
    if is_first:
        _write(asked, results)
    else:
        for _ in results:
            pass


def _tokens(opened: "OpenModel", asked: _Asked, number: int) -> list[int]:
    from neva_model.checkpoints.huggingface import is_huggingface_directory
    from neva_model.inference.continuing import prompt_tokens
    from neva_model.inference.generate import check_length

    add_bos = asked.add_bos
    if add_bos is None and not is_huggingface_directory(opened.source):
        add_bos = opened.tokenizer.bos_id is not None  # as training begins its texts, and as chat does
    try:
        tokens = prompt_tokens(opened.tokenizer, asked.prompts[number], add_bos=add_bos)
        check_length(opened.model, len(tokens))
    except DataError as error:
        which = f"prompt {number + 1}: " if len(asked.prompts) > 1 else ""
        raise DataError(f"{which}{error}") from None
    return tokens


def _write(asked: _Asked, results: Iterator["Continuation"]) -> None:
    """Write a JSON line for each prompt as soon as it is there, so that an interruption leaves the lines before it."""
    lines = map(_line, asked.prompts, results)
    if asked.output is None:
        for line in lines:
            print(line, flush=True)
        return
    progress, total = ProgressLine(), len(asked.prompts)
    with writing_errors(asked.output):
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        file = asked.output.open("xb", buffering=0)
    with file:
        for done, line in enumerate(lines, start=1):  # the model works here, whose errors are none of the file
            with writing_errors(asked.output):
                _write_whole(file, f"{line}\n".encode())
            progress.show(f"{done:,} of {total:,} prompts continued", is_last=done == total)
    print(f"wrote {asked.output}")


def _write_whole(file: FileIO, content: bytes) -> None:
    while content:  # a disk that is nearly full takes a part
        content = content[file.write(content) :]


def _line(prompt: str, result: "Continuation") -> str:
    written = {PROMPT: prompt, **result._asdict()}
    return json.dumps(written, ensure_ascii=False)
