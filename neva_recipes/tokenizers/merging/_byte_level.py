"""Merges byte-level BPE tokenizers: new tokens and merges stand behind those of the base."""

from collections.abc import Iterator

from neva_recipes.config import DataError, PlainTable
from neva_recipes.prompts.tokens.vocabulary import next_id
from neva_recipes.tokenizers._byte_level_files import ByteLevelFile, Pair, backend_of
from neva_recipes.tokenizers._producible import parts_of
from neva_recipes.tokenizers.merging._union import Union

__all__ = ["unite_byte_level"]

_KEPT = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def unite_byte_level(base: ByteLevelFile, new: ByteLevelFile) -> tuple[PlainTable, Union]:
    """Return the tokenizer.json with the tokens of both, and what became of those of `new`.

    Merges of the base come first, so they are done as before. They may take apart what the merges of `new` begin with;
    a token whose text then becomes two tokens gets a merge of these two, behind all others.

    Raises:
        DataError: A token of the base would get another id.
    """
    # The tokenizers library moves added tokens behind a vocabulary that grows; those of the vocabulary stay.
    known = {**base.vocabulary, **base.added}
    _require_places(base, known)
    made_of = {left + right: (left, right) for left, right in new.merges}
    normal = [token for token, _ in sorted(new.vocabulary.items(), key=lambda item: item[1]) if token not in new.added]
    fresh = [token for token in normal if token not in known]
    first = next_id(known)
    vocabulary = known | {token: first + number for number, token in enumerate(fresh)}
    own = [made_of[token] for token in fresh if token in made_of]
    merges = [pair for pair in own if vocabulary.keys() >= set(pair)]
    lost = _bridge(base, vocabulary, merges, fresh)
    lost |= _cut(base, new, [token for token in fresh if token not in lost], merges)
    added = [token for token in fresh if token not in lost]
    kept = [pair for pair in merges if not lost & {*pair, "".join(pair)}]
    layout = base.with_vocabulary(
        known | {token: first + number for number, token in enumerate(added)}, [*base.merges, *kept]
    )
    _require_ids(base, layout, known)
    return layout, Union(
        base_size=first,
        added=tuple(added),
        duplicates=len(normal) - len(fresh),
        unproducible=tuple(token for token in fresh if token in lost),
        not_taken=tuple(token for token, special in new.kinds.items() if special and token not in known),
        whole_not_taken=tuple(token for token, special in new.kinds.items() if not special and token not in known),
        differences=tuple(_differences(base.layout, new.layout)),
    )


def _require_places(base: ByteLevelFile, known: dict[str, int]) -> None:
    holders: dict[int, str] = {}
    for token, number in known.items():
        if number in holders:
            raise DataError(f"{base.folder}: tokens {holders[number]} and {token} have the same id, {number}")
        holders[number] = token


def _bridge(base: ByteLevelFile, vocabulary: dict[str, int], merges: list[Pair], fresh: list[str]) -> set[str]:
    """Append merges for tokens whose text becomes two others, and return the tokens that no text becomes.

    A merge that comes last takes nothing from the others.

    Args:
        base: The base.
        vocabulary: Id of every token.
        merges: Merges behind those of the base, to which others are appended.
        fresh: The new tokens.
    """
    from tokenizers.models import BPE

    pending = [token for token in fresh if len(token) > 1]
    while True:
        model = BPE(vocab=vocabulary, merges=[*base.merges, *merges])
        parts = {token: parts_of(model, token) for token in pending}
        pending = [token for token in pending if parts[token] != [token]]
        halves = [token for token in pending if len(parts[token]) == 2 and "".join(parts[token]) == token]
        if not halves:
            return set(pending)
        merges += [(parts[token][0], parts[token][1]) for token in halves]


def _cut(base: ByteLevelFile, new: ByteLevelFile, tokens: list[str], merges: list[Pair]) -> set[str]:
    """Return the tokens that another pre-tokenizer than their own cuts, except for parts of tokens that it does not."""
    from tokenizers.decoders import ByteLevel

    pre_tokenizer = backend_of(base.path, base.layout).pre_tokenizer
    if pre_tokenizer is None or base.layout.get("pre_tokenizer") == new.layout.get("pre_tokenizer"):
        return set()
    decoder, whole = ByteLevel(), set()
    for token in tokens:
        text = decoder.decode([token])
        # The bytes of a part of a character are no text.
        if "\ufffd" in text or len(pre_tokenizer.pre_tokenize_str(text)) == 1:
            whole.add(token)
    for left, right in reversed(merges):
        if left + right in whole:
            whole |= {left, right}
    return set(tokens) - whole


def _require_ids(base: ByteLevelFile, layout: PlainTable, known: dict[str, int]) -> None:
    """Check that the library gives every token of the base its id."""
    backend = backend_of(base.path, layout)
    for token, number in known.items():
        if backend.token_to_id(token) != number:
            raise DataError(f"{base.path}: token {token} would move from {number} to {backend.token_to_id(token)}")


def _differences(base: PlainTable, new: PlainTable) -> Iterator[str]:
    yield from (f"another {name.replace('_', '-')}" for name in _KEPT if base.get(name) != new.get(name))
