"""A data file like LLaVA's mixture, with faults of every kind planted in it: which samples have which is known."""

import json
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

__all__ = ["PLANTED", "write_planted"]

_WORDS = (
    "the cat dog bird tree house road river boat man woman child sits stands runs sees holds wears reads eats red blue "
    "green white black small large old young on under near behind with and then while"
)
_IMAGES = 500
_TEXT_ONLY = 0.061
"""The share of samples without an image in llava_v1_5_mix665k."""

_LONG = "word " * 2600
"""About 3,250 tokens by the estimate of four characters each: more than the 2,048 of a sequence."""

_MARK, _ASK, _TELL = "<image>\n", "human", "gpt"

Record = dict[str, object]


def _turns(*texts: str) -> list[dict[str, object]]:
    return [{"from": _TELL if number % 2 else _ASK, "value": text} for number, text in enumerate(texts)]


def _set(**fields: object) -> Callable[[Record], None]:
    return lambda record: record.update(fields)


def _drop(field: str, **fields: object) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        del record[field]
        record.update(fields)

    return change


def _say(record: Record, *texts: str) -> None:
    """Replace the turns; what makes them differ from those of other samples is put behind the first."""
    record["conversations"] = _turns(f"{texts[0]} ({record['id']})", *texts[1:])


def _says(*texts: str, **fields: object) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        _say(record, *texts)
        record.update(fields)

    return change


def _turn(number: int, **fields: object) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        _say(record, _MARK + "What?", "This.", "And?", "That.")
        record["conversations"][number] = fields or 7

    return change


def _two_lists(record: Record) -> None:
    record["messages"] = record["conversations"]


def _text_only(record: Record) -> None:
    del record["image"]
    _say(record, "What?", "This.")


PLANTED: dict[str, Callable[[Record], None]] = {
    "conversations-missing": _drop("conversations"),
    "conversations-empty": _set(conversations=[]),
    "conversations-not-a-list": _set(conversations="What? This."),
    "two-lists": _two_lists,
    "foreign-format": _drop("conversations", instruction="What?", output="This."),
    "key-misspelled": _set(sytem="Be brief."),
    "turn-not-an-object": _turn(2),
    "turn-field": _turn(1, **{"from": _TELL, "value": "This.", "tool_calls": [1]}),
    "role-missing": _turn(2, value="And?"),
    "role-unknown": _turn(2, **{"from": "narrator", "value": "And?"}),
    "roles-not-alternating": _turn(2, **{"from": _TELL, "value": "And?"}),
    "value-missing": _turn(3, **{"from": _TELL}),
    "value-not-text": _turn(3, **{"from": _TELL, "value": 7}),
    "half-character": _says(_MARK + "What?", "This \ud83d."),
    "ends-with-question": _says(_MARK + "What?", "This.", "And?"),
    "answer-empty": _says(_MARK + "What?", "This.", "And?", " "),
    "answer-empty-cell": _says(_MARK + "What?", "nan"),
    "no-loss": _says(_MARK + "What?", ""),
    "cut-no-loss": _says(_MARK + _LONG, "This."),
    "cut-image": _says("What?", _LONG, _MARK + "And?", "That."),
    "system-wrong": _set(system=5),
    "field-unusable": _set(video="a.mp4"),
    "template-misfit": _turn(1, **{"from": _TELL, "value": "This.", "label": "quality:4"}),
    "image-field-wrong": _set(image=""),
    "several-images": _set(image=["good/1.jpg", "good/2.jpg"]),
    "image-in-other-field": _drop("image", image_path="good/1.jpg"),
    "image-not-read": _says("What?", "This.", image=None, picture="good/1.jpg"),
    "image-without-mark": _says("What?", "This.", image="good/1.jpg"),
    "other-image-mark": _says("<|image_1|> What?", "This.", image="good/1.jpg"),
    "mark-without-image": _drop("image"),
    "too-many-image-marks": _says(_MARK + "What?", "This.", _MARK + "And?", "That."),
    "image-mark-in-answer": _says(_MARK + "What?", "This <image>."),
    "image-unanswered": _says("What?", "This.", _MARK + "And?"),
    "image-not-a-file-name": _set(image="https://example.org/1.jpg"),
    "image-missing": _set(image="good/none.jpg"),
    "image-other-ending": _set(image="bad/other.jpg"),
    "image-is-folder": _set(image="good"),
    "image-empty": _set(image="bad/empty.jpg"),
    "image-unreadable": _set(image="bad/text.jpg"),
    "image-truncated": _set(image="bad/truncated.jpg"),
    "image-too-large": _set(image="bad/large.png"),
    "image-wrong-ending": _set(image="bad/wrong.jpg"),
    "duplicate-id": lambda record: None,
    "duplicate-content": lambda record: None,
}
"""What makes a sample with an image a faulty one, for each kind of findings."""


def _write_images(folder: Path) -> None:
    good, bad = folder / "good", folder / "bad"
    good.mkdir(parents=True)
    bad.mkdir()
    for number in range(_IMAGES):
        Image.new("RGB", (48, 32), (number % 256, number // 2 % 256, 90)).save(good / f"{number}.jpg")
    whole = (good / "0.jpg").read_bytes()
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "text.jpg").write_text("<html>404</html>")
    (bad / "truncated.jpg").write_bytes(whole[:-40])
    Image.new("L", (8, 8)).save(bad / "wrong.gif")
    (bad / "wrong.gif").rename(bad / "wrong.jpg")
    Image.new("RGB", (8, 8)).save(bad / "other.png")
    Image.new("RGB", (8, 8)).save(bad / "large.png")
    with (bad / "large.png").open("r+b") as file:  # width and height of the header
        file.seek(16)
        file.write((100_000).to_bytes(4, "big") * 2)


def write_planted(folder: Path, samples: int, times: int) -> tuple[Path, Path, dict[str, list[int]]]:
    """Write a data file and its images.

    Args:
        folder: Where to.
        samples: How many samples it has.
        times: How many samples have each fault.

    Returns:
        The data file, the folder of the images, and the numbers of the samples with each fault.
    """
    draw = random.Random(0)
    words = _WORDS.split()
    sentences = [" ".join(draw.choices(words, k=draw.randrange(4, 42))) for _ in range(4000)]
    places = draw.sample(range(2, samples), times * len(PLANTED))
    of_place = dict(zip(places, [*PLANTED] * times, strict=True))
    images, path = folder / "images", folder / "mix.json"
    _write_images(images)
    earlier: Record = {}
    with path.open("w", encoding="utf-8") as file:
        for number in range(samples):
            record: Record = {"id": f"{number:012d}", "image": f"good/{number % _IMAGES}.jpg"}
            texts = draw.choices(sentences, k=2 * draw.randrange(1, 11))
            _say(record, _MARK + texts[0], *texts[1:])
            kind = of_place.get(number)
            if kind is None and number > 1 and draw.random() < _TEXT_ONLY:
                _text_only(record)
            elif kind == "duplicate-id":
                record["id"] = earlier["id"]
            elif kind == "duplicate-content":
                record |= {"image": earlier["image"], "conversations": earlier["conversations"]}
            elif kind is not None:
                PLANTED[kind](record)
            if kind is None and "image" in record:
                earlier = record
            file.write(("[\n" if number == 0 else ",\n") + json.dumps(record))
        file.write("\n]\n")
    return path, images, {kind: sorted(place for place, one in of_place.items() if one == kind) for kind in PLANTED}
