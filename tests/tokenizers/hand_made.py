"""Tokenizers of a few letters whose merges are chosen by hand."""

import json

from sentencepiece import sentencepiece_model_pb2

from tests.tokenizers.reading import proto

NORMAL = sentencepiece_model_pb2.ModelProto.SentencePiece.NORMAL


def hand_made_sentencepiece(path, english_model, pieces):
    """Write a model whose normal pieces are these, in the order of their scores."""
    model = proto(english_model)
    others = [piece for piece in model.pieces if piece.type != NORMAL]
    del model.pieces[:]
    model.pieces.extend(others)
    for number, piece in enumerate(pieces):
        model.pieces.add(piece=piece, score=-float(number))
    path.write_bytes(model.SerializeToString())
    return path


def hand_made_byte_level(folder, merges, specials=()):
    """Write a tokenizer of the letters a to e and some merges."""
    folder.mkdir()
    tokens = [*"abcde", *("".join(pair) for pair in merges)]
    layout = {
        "version": "1.0",
        "added_tokens": [
            {"id": len(tokens) + place, "content": token, "special": True, "single_word": False, "lstrip": False}
            | {"rstrip": False, "normalized": False}
            for place, token in enumerate(specials)
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [" ".join(pair) for pair in merges],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(layout))
    return folder
