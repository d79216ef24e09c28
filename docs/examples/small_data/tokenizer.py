"""Train a small SentencePiece tokenizer on a text file, and write it as a directory that transformers loads.

python docs/examples/small_data/tokenizer.py data/text.txt data/tokenizer
"""

import json
import sys
from pathlib import Path

try:
    import sentencepiece
except ModuleNotFoundError:
    sys.exit("error: no package sentencepiece here: activate the environment of nemo-run, . CLONE/.venv/bin/activate")

VOCABULARY = 2000
"""At most: of little text there are fewer pieces to learn."""

# What the templates add to the text of the data.
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def main(text: str, target: str) -> None:
    """Train a tokenizer on a text file."""
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*Path(text).read_text(encoding="utf-8").splitlines(), SYSTEM, "Describe the image."]
    with (folder / "tokenizer.model").open("wb") as model:
        # These settings are what transformers encodes in the same way: BPE with bytes, and no change of the text.
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines * 20),
            model_writer=model,
            vocab_size=VOCABULARY,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {**config, "add_bos_token": True, "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: tokenizer.py TEXT FOLDER")
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except UnicodeDecodeError as error:
        sys.exit(f"error: {sys.argv[1]}: byte {error.start:,} is not UTF-8 text")
