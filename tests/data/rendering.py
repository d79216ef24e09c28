"""Turns encoded conversations back into readable text, token by token, with [[ ]] around what carries loss."""

from itertools import groupby

from neva_model.data import IMAGE_TOKEN_INDEX, EncodedConversation
from neva_model.tokenizers import Tokenizer


def render(encoded: EncodedConversation, tokenizer: Tokenizer) -> str:
    """Spell every token as its vocabulary does; nothing is decoded together with its neighbours but bytes."""
    text = ""
    pairs = zip(encoded.tokens.tolist(), encoded.loss_mask.tolist(), strict=True)
    for carries_loss, group in groupby(pairs, key=lambda pair: pair[1]):
        spelt = spell([token for token, _ in group], tokenizer)
        text += f"[[{spelt}]]" if carries_loss else spelt
    return text


def spell(tokens: list[int], tokenizer: Tokenizer) -> str:
    added = {number: name for name, number in tokenizer.hf.get_added_vocab().items()}
    output = b""
    for token in tokens:
        if token == IMAGE_TOKEN_INDEX:
            output += b"<image>"
        elif token in added:
            output += added[token].encode()
        else:
            output += _piece_bytes(tokenizer.pieces([token])[0])
    return output.decode()


def _piece_bytes(piece: str) -> bytes:
    if piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:-1], 16)])
    if set(piece) <= _BYTE_OF.keys():
        return bytes(_BYTE_OF[character] for character in piece)
    return piece.replace("\u2581", " ").encode()


def _byte_of() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(rest)}


_BYTE_OF = _byte_of()
