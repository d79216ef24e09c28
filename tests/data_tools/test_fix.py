"""`--fix` copies images under the endings of their contents, and changes nothing that is there."""

import gzip
import json

from PIL import Image

from neva_recipes.cli.main import main
from tests.data_tools.samples import sample


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def images_in(folder):
    """OCR-VQA as it is often found: a GIF and a PNG under .jpg, and one that was saved under its own ending."""
    (folder / "ocr").mkdir(parents=True)
    for name, kind in (("right.jpg", "JPEG"), ("a.jpg", "GIF"), ("b.jpg", "PNG"), ("c.gif", "GIF"), ("b.png", "BMP")):
        with (folder / "ocr" / name).open("wb") as file:
            Image.new("L", (9, 9), len(name)).save(file, kind)
    return folder


def records():
    names = ["ocr/right.jpg", "ocr/a.jpg", "ocr/b.jpg", "ocr/c.jpg", "ocr/a.jpg"]
    return [sample(number, f"<image>\n{number} ü?", image=name) for number, name in enumerate(names)]


RIGHT = ["ocr/right.jpg", "ocr/a.gif", "ocr/b.1.png", "ocr/c.gif", "ocr/a.gif"]
"""b.png is another image, and so the copy has another name."""


def check(path, images, *words):
    return main(["data", "check", str(path), "--image-folder", str(images), *words])


def test_names_are_mended_and_nothing_is_changed(tmp_path, capsys):
    images = images_in(tmp_path / "images")
    path = tmp_path / "ocr.json"
    path.write_text(json.dumps(records(), indent=3, ensure_ascii=False), encoding="utf-8")
    before = contents(tmp_path)
    assert check(path, images, "--fix") == 1
    told = capsys.readouterr()
    assert "image-wrong-ending, 3 samples" in told.out and "image-other-ending, 1 sample" in told.out
    assert "other names in 4 samples; copied 2 images" in told.err.replace("\n", " ")
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"ocr.fixed.json", "images/ocr/a.gif", "images/ocr/b.1.png"}
    assert after["images/ocr/a.gif"] == before["images/ocr/a.jpg"]
    assert after["images/ocr/b.1.png"] == before["images/ocr/b.jpg"]
    fixed = json.loads(after["ocr.fixed.json"])
    assert fixed == [{**record, "image": name} for record, name in zip(records(), RIGHT, strict=True)]
    assert check(tmp_path / "ocr.fixed.json", images) == 0
    assert check(path, images, "--fix") == 2
    assert "ocr.fixed.json: exists already" in capsys.readouterr().err


def test_lines_and_archives(tmp_path):
    images = images_in(tmp_path / "images")
    text = "".join(f"{json.dumps(record)}\n" for record in records())
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(json.dumps(records()).encode()))
    for name, fixed in (("a.jsonl", "a.fixed.jsonl"), ("b.jsonl.gz", "b.fixed.jsonl"), ("c.json.gz", "c.fixed.json")):
        assert check(tmp_path / name, images, "--fix") == 1
        made = (tmp_path / fixed).read_text(encoding="utf-8")
        found = [json.loads(line) for line in made.splitlines()] if fixed.endswith("l") else json.loads(made)
        assert [record["image"] for record in found] == RIGHT
        assert check(tmp_path / fixed, images) == 0


def test_where_nothing_is_wrong_nothing_is_written(tmp_path, capsys):
    images = images_in(tmp_path / "images")
    path = tmp_path / "good.json"
    path.write_text(json.dumps(records()[:1]))
    before = contents(tmp_path)
    assert check(path, images, "--fix") == 0
    assert "no image has a wrong ending: nothing was mended" in capsys.readouterr().err.replace("\n", " ")
    assert contents(tmp_path) == before
