"""Write real handwritten digits as a LLaVA data set: images, conversations, text, and a tokenizer.

    python docs/examples/digits/prepare.py demo/data

The 1,797 digits are those that scikit-learn ships (UCI optical recognition of handwritten digits). One in ten is
held out: no question about it is ever trained on. The others come three times, twice a little rotated and shifted.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import sentencepiece
    from PIL import Image
    from sklearn.datasets import load_digits
except ModuleNotFoundError as error:
    sys.exit(f"error: no package {error.name} here: make demo installs what the example needs")

IMAGE_SIZE = 56
HELD_OUT_EVERY = 10
COPIES = 3
LARGEST_ROTATION = 12
LARGEST_SHIFT = 4
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
QUESTIONS = [
    "Which digit is this?",
    "Is the digit odd or even?",
    "Is the digit larger than five?",
]


def answers(digit: int) -> list[str]:
    """Return the answer to each of `QUESTIONS` for a digit."""
    return [WORDS[digit], "odd" if digit % 2 else "even", "yes" if digit > 5 else "no"]


def caption(digit: int) -> str:
    """Return a sentence that says what the image shows."""
    kind = "odd" if digit % 2 else "even"
    size = "larger" if digit > 5 else "not larger"
    return f"the digit {WORDS[digit]}, an {kind} digit, {size} than five"


def moved(image: Image.Image, randomness: random.Random) -> Image.Image:
    """Return a slightly rotated and shifted copy, as another hand might have written the digit."""
    angle = randomness.uniform(-LARGEST_ROTATION, LARGEST_ROTATION)
    shift = (randomness.randint(-LARGEST_SHIFT, LARGEST_SHIFT), randomness.randint(-LARGEST_SHIFT, LARGEST_SHIFT))
    return image.rotate(angle, Image.Resampling.BICUBIC, translate=shift)


def pretrain_sample(name: str, digit: int) -> dict[str, object]:
    """Return an image with its caption, for the projector."""
    turns = [{"from": "human", "value": "<image>\nDescribe the image."}, {"from": "gpt", "value": caption(digit)}]
    return {"id": name, "image": f"{name}.png", "conversations": turns}


def finetune_sample(name: str, digit: int, order: list[int]) -> dict[str, object]:
    """Return a conversation of several turns that asks the questions in the given order."""
    turns = []
    for position, question in enumerate(order):
        prefix = "<image>\n" if position == 0 else ""
        turns.append({"from": "human", "value": prefix + QUESTIONS[question]})
        turns.append({"from": "gpt", "value": answers(digit)[question]})
    return {"id": name, "image": f"{name}.png", "conversations": turns}


def questions_of(name: str, digit: int) -> Iterator[dict[str, object]]:
    """Yield one single-turn conversation per question, for evaluation."""
    for index in range(len(QUESTIONS)):
        yield {**finetune_sample(name, digit, [index]), "id": f"{name}-{index}"}


def write_json(path: Path, value: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def text_lines() -> list[str]:
    """Return sentences with every word of the captions, questions and answers, for the language model."""
    lines = [caption(digit) for digit in range(10)]
    for digit in range(10):
        for question, answer in zip(QUESTIONS, answers(digit), strict=True):
            lines.append(f"USER: {caption(digit)}. {question} ASSISTANT: {answer}")
    return lines


def train_tokenizer(directory: Path, lines: list[str]) -> None:
    """Train a SentencePiece tokenizer on the text and write it as a directory that transformers loads."""
    directory.mkdir(parents=True, exist_ok=True)
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    with (directory / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*lines, system, "Describe the image."] * 20),
            model_writer=model,
            vocab_size=640,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(directory / "tokenizer_config.json", {**config, "add_bos_token": True, "legacy": False})


def main(directory: Path) -> None:
    """Write everything under `directory`."""
    digits = load_digits()
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)
    randomness = random.Random(0)
    pretrain, finetune, held_out = [], [], []
    for index, (pixels, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        name, digit = f"digit-{index:04d}", int(target)
        image = Image.fromarray((pixels * (255 / 16)).astype("uint8")).convert("RGB")
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        if index % HELD_OUT_EVERY == 0:
            image.save(images / f"{name}.png")
            held_out.extend(questions_of(name, digit))
            continue
        for copy in range(COPIES):
            copy_name = f"{name}-{copy}"
            (moved(image, randomness) if copy else image).save(images / f"{copy_name}.png")
            pretrain.append(pretrain_sample(copy_name, digit))
            order = list(range(len(QUESTIONS)))
            randomness.shuffle(order)
            finetune.append(finetune_sample(copy_name, digit, order))
    write_json(directory / "pretrain.json", pretrain)
    write_json(directory / "finetune.json", finetune)
    write_json(directory / "held_out.json", held_out)
    lines = text_lines()
    (directory / "text.txt").write_text("\n".join(lines * 20) + "\n", encoding="utf-8")
    train_tokenizer(directory / "tokenizer", lines)
    held_out_images = len(held_out) // len(QUESTIONS)
    print(f"{directory}: {len(finetune)} training images ({COPIES} of each digit) and {held_out_images} held-out ones")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: prepare.py FOLDER")
    main(Path(sys.argv[1]))
