"""Continues many texts, in batches of prompts of similar length."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from neva_model.inference.generate import check_length, generate
from neva_model.inference.opening import OpenModel
from neva_model.inference.options import Sampling
from neva_model.inference.text_stream import TextStream
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import DataError
from neva_recipes.families.rope import resolved_rope

__all__ = ["Continuation", "continue_text", "continue_texts", "prompt_tokens"]

_BATCHES = 16
"""Batches whose prompts are sorted by their length together; a result waits for those before it."""

_MOST_UNEQUAL = 32
"""Most tokens by which prompts of a batch may differ, for what a longer one has more is read token by token."""


class Continuation(NamedTuple):
    """What a model wrote after a prompt.

    Attributes:
        text: Its text.
        tokens: Its tokens, without the one that ended it.
        is_complete: Whether the model ended it, rather than the limit of new tokens or of the model.
    """

    text: str
    tokens: list[int]
    is_complete: bool


def prompt_tokens(tokenizer: Tokenizer, text: str, *, add_bos: bool | None = None) -> list[int]:
    """Return the tokens of a text that is to be continued.

    Args:
        tokenizer: The model's tokenizer.
        text: The text; special tokens in it are spelt out.
        add_bos: Whether the token that begins a text comes first; `None` does as the tokenizer does by itself.

    Raises:
        DataError: There is nothing to begin with, or the tokenizer has no such token.
    """
    bos = tokenizer.bos_id
    if add_bos and bos is None:
        raise DataError(f"--add-bos: the tokenizer {tokenizer.name} has no token that begins a text")
    # Its setting may say otherwise than the tokens that it adds to every text.
    wanted = bos in tokenizer.hf("")["input_ids"][:1] if add_bos is None else add_bos
    tokens = [*([bos] if wanted and bos is not None else []), *tokenizer.encode_text(text, prefix=True)]
    if not tokens:
        raise DataError("there is no text to continue, and no token to begin one with: --add-bos adds one")
    return tokens


def continue_text(opened: OpenModel, tokens: Sequence[int], sampling: Sampling) -> Iterator[str]:
    """Yield what a model writes after a prompt, piece by piece.

    Args:
        opened: The model.
        tokens: The prompt.
        sampling: How tokens are chosen.

    Raises:
        DataError: The prompt leaves no room.
    """
    stream = _stream(opened, tokens)
    for (token,) in _steps(opened, [tokens], sampling, [0]):
        assert token is not None
        yield stream.push(token)
    if not stream.ended:
        yield stream.finish()


def continue_texts(
    opened: OpenModel, prompts: Sequence[Sequence[int]], *, sampling: Sampling, batch_size: int
) -> Iterator[Continuation]:
    """Yield what a model writes after each prompt, in the order of the prompts.

    On a model that is divided over ranks, all of them must call this with the same arguments.

    Args:
        opened: The model.
        prompts: Tokens of the prompts, of any lengths.
        sampling: How tokens are chosen; what is drawn for a prompt depends on the seed and its place among them.
        batch_size: Most prompts continued at once.

    Raises:
        DataError: A prompt leaves no room.
    """
    check_length(opened.model, max(map(len, prompts), default=0))
    window = _BATCHES * batch_size
    for first in range(0, len(prompts), window):
        part = prompts[first : first + window]
        found, due = dict[int, Continuation](), 0
        for batch in _batches([len(prompt) for prompt in part], batch_size, _most_unequal(opened)):
            some, numbers = [part[row] for row in batch], [first + row for row in batch]
            found.update(zip(batch, _continue(opened, some, sampling, numbers), strict=True))
            while due in found:
                yield found.pop(due)
                due += 1


def _most_unequal(opened: OpenModel) -> int:
    # With dynamic, the frequencies of a prompt are those of its length, which it must be read with at once.
    is_dynamic = resolved_rope(opened.recipe.model.language).kind == "dynamic"
    return 0 if is_dynamic else _MOST_UNEQUAL


def _batches(lengths: Sequence[int], batch_size: int, most_unequal: int) -> Iterator[list[int]]:
    """Yield the rows of each batch, the shortest first."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) == batch_size or lengths[row] - lengths[batch[0]] > most_unequal):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _stream(opened: OpenModel, tokens: Sequence[int]) -> TextStream:
    return TextStream(opened.tokenizer, stop_ids=_stops(opened), context=tokens)


def _stops(opened: OpenModel) -> frozenset[int]:
    end = opened.tokenizer.eos_id
    return frozenset([] if end is None else [end])


def _steps(
    opened: OpenModel, batch: Sequence[Sequence[int]], sampling: Sampling, numbers: Sequence[int]
) -> Iterator[list[int | None]]:
    lengths = [len(prompt) for prompt in batch]
    pad, longest = opened.tokenizer.pad_id, max(lengths)
    rows = [[*prompt, *[pad] * (longest - len(prompt))] for prompt in batch]
    return generate(
        opened.model,
        torch.tensor(rows),
        sampling=sampling,
        stop_token_ids=_stops(opened),
        lengths=lengths,
        numbers=numbers,
    )


def _continue(
    opened: OpenModel, batch: Sequence[Sequence[int]], sampling: Sampling, numbers: Sequence[int]
) -> Iterator[Continuation]:
    answers: list[list[int]] = [[] for _ in batch]
    for step in _steps(opened, batch, sampling, numbers):
        for answer, token in zip(answers, step, strict=True):
            if token is not None:
                answer.append(token)
    for prompt, answer in zip(batch, answers, strict=True):
        stream = _stream(opened, prompt)
        text = "".join(map(stream.push, answer))
        is_complete = stream.ended
        text += "" if is_complete else stream.finish()
        yield Continuation(text, answer[:-1] if is_complete else answer, is_complete)
