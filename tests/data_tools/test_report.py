"""The report as text of 80 columns, as a page that stands by itself, and as a picture."""

import json
import re
import sys

import pytest
from PIL import Image

from neva_recipes.cli.main import main
from neva_recipes.data_tools.check import check_files
from neva_recipes.data_tools.page import report_to_html
from neva_recipes.data_tools.settings import Settings
from tests.cli.command import in_terminal
from tests.data_tools.samples import sample
from tests.pages import Page, measured, needs_browser

HOSTILE = "<script>document.title='taken'</script>\"'&amp;</style>\x1b[2J\u202e" + "w" * 300


def hostile(write):
    """A report with text of every kind that could be taken for markup, and that a terminal would act on."""
    turns = [{"from": HOSTILE, "value": "What?"}, {"from": "gpt", "value": "This."}]
    path = write({"id": HOSTILE, "conversations": turns}, *(sample(number, f"{number}?") for number in range(30)))
    return check_files([path], Settings("v1", 2048, 576), lambda progress: None)


def test_the_text_has_80_columns_and_the_figures_of_the_file(planted, capsys, monkeypatch):
    path, images, truth = planted
    monkeypatch.chdir(path.parent)
    assert main(["data", "check", path.name, "--image-folder", images.name]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    told = dict(re.findall(r"^  (?:error|warning) (\S+), (\d+) samples?:", "\n".join(lines), re.MULTILINE))
    assert told == {kind: str(len(numbers)) for kind, numbers in truth.items()}
    assert lines[0] == "mix.json: 4,000 samples, 132 findings"
    assert "  samples              4,000" in lines
    text = " ".join(" ".join(lines).split())
    with_image = sum("image" in record and record["image"] is not None for record in json.loads(path.read_text()))
    assert f"with an image {with_image:,} (" in text and f"text only {4000 - with_image:,} (" in text
    assert "checked: template v1, 576 tokens an image, tokens estimated; images in images, not decoded" in text


def test_a_clean_file_has_exit_code_0(write, capsys):
    path = write(*(sample(number, f"{number}?") for number in range(9)))
    assert main(["data", "check", str(path)]) == 0
    told = capsys.readouterr()
    assert f"{path}: 9 samples, nothing found" in " ".join(told.out.split())
    assert told.err == ""


def test_an_image_in_another_folder_is_told(planted, write, capsys):
    _, images, _ = planted
    path = write(sample(0, "<image>\n?", image="1.jpg"))
    assert main(["data", "check", str(path), "--image-folder", str(images)]) == 1
    assert "the first: it is in " in " ".join(capsys.readouterr().out.split())


def test_nothing_in_a_file_reaches_the_terminal_or_the_page_as_more_than_text(write, capsys):
    report = hostile(write)
    path = report.files[0].path
    assert main(["data", "check", str(path)]) == 1
    assert not {"\x1b", "\u202e"} & set(capsys.readouterr().out)
    page = Page(report_to_html(report))
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert not {"src", "href", "srcset"} & {name for name, _ in page.attributes}
    assert "url(" not in "".join(page.texts) and "@import" not in "".join(page.texts)
    assert "<script>document.title" in "".join(page.texts)


def test_the_page_has_every_finding_and_the_shares_of_the_bars(planted, tmp_path, monkeypatch):
    path, images, truth = planted
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", str(path), "--image-folder", str(images), "--html", "a.html"]) == 1
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    for numbers in truth.values():
        for number in numbers:
            assert any(text.startswith(f"sample {number} (id ") for text in page.texts), number
    widths = [float(value[6:-1]) for name, value in page.attributes if name == "style"]
    assert max(widths) == 100.0 and min(widths) >= 0.0


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["planted", "hostile"])
def test_in_a_browser_nothing_sticks_out(which, width, planted, write, tmp_path):
    if which == "planted":
        path, images, _ = planted
        report = check_files([path], Settings("v1", 2048, 576, image_folder=images), lambda progress: None)
    else:
        report = hostile(write)
    text = report_to_html(report).replace("<details>", '<details open="">')
    found = measured(text, width, tmp_path)
    assert found["inner"] == width and found["scroll"] <= width and (found["out"], found["small"]) == (0, 0)
    assert found["title"] == "Check of data files"


def test_the_picture_is_a_png(write, tmp_path):
    path = write(*(sample(number, f"{number}?") for number in range(9)))
    assert main(["data", "check", str(path), "--png", str(tmp_path / "a.png")]) == 0
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.format == "PNG" and image.size == (1200, 800)


def test_in_a_terminal_a_bar_shows_how_far_it_is(planted):
    path, _, _ = planted
    shown = in_terminal(f"{sys.executable} -m neva_recipes data check {path} --format json > /dev/null")
    bars = re.findall(r"\[(#*)(-*)\] +(\d+)% ([\d,]+) samples", shown)
    assert bars and all(len(done) + len(left) == 20 for done, left, *_ in bars)
