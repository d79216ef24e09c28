"""The text that tokens stand for."""

from collections.abc import Callable, Container

from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer

__all__ = ["speller"]

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece writes for a space."""


def speller(tokenizer: LocalTokenizer) -> Callable[[int], bytes]:
    """Return a function that returns the bytes which a token of a tokenizer stands for."""
    tokens = {number: token for token, number in tokenizer.tokens.items()}
    whole: Container[int] = {*tokenizer.specials.values()}
    letters = _byte_letters()
    is_byte_level = _SPACE not in tokenizer.tokens and letters.keys() <= tokenizer.tokens.keys()

    def spelt(number: int) -> bytes:
        token = tokens.get(number, f"<{number}>")
        if number in whole:
            return token.encode()
        if is_byte_level:
            return b"".join(_of_letter(letter, letters) for letter in token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace(_SPACE, " ").encode()

    return spelt


def _of_letter(letter: str, letters: dict[str, int]) -> bytes:
    return bytes([letters[letter]]) if letter in letters else letter.encode()


def _byte_letters() -> dict[str, int]:
    """Return the letter of each byte in byte-level vocabularies, as GPT-2's bytes_to_unicode has them."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(others)}
