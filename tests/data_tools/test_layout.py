"""`nemo-run data layout` compares a folder with LLaVA's published trees."""

import json
import shutil

import pytest

from neva_recipes.cli.main import main

PARTS = ["coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images", "vg/VG_100K", "vg/VG_100K_2"]
URLS = {
    "blip_laion_cc_sbu_558k.json": "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain/resolve/main/",
    "llava_v1_5_mix665k.json": "https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K/resolve/main/",
    "LLaVA-Pretrain/images": "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain/resolve/main/images.zip",
    "coco/train2017": "http://images.cocodataset.org/zips/train2017.zip",
    "gqa/images": "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip",
    "ocr_vqa/images": "https://drive.google.com/drive/folders/1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_?usp=sharing",
    "textvqa/train_images": "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip",
    "vg/VG_100K": "https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip",
    "vg/VG_100K_2": "https://cs.stanford.edu/people/rak248/VG_100K_2/images2.zip",
}
"""From README.md of the original, and the pages of its data sets."""


@pytest.fixture
def data(tmp_path):
    """All of the published data, in small."""
    pretrain = tmp_path / "LLaVA-Pretrain"
    names = [f"0000{number}/0000{number}0.jpg" for number in range(5)]
    mixed = [f"{part}/{number}.jpg" for part in PARTS for number in range(4)]
    for path in (*(pretrain / "images" / name for name in names), *(tmp_path / name for name in mixed)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (pretrain / "blip_laion_cc_sbu_558k.json").write_text(json.dumps([{"image": name} for name in names]))
    records = [{"image": name} for name in mixed * 2] + [{"id": "text"}]
    (tmp_path / "llava_v1_5_mix665k.json").write_text(json.dumps(records))
    return tmp_path


def said(folder, capsys, code):
    assert main(["data", "layout", str(folder)]) == code
    return " ".join(capsys.readouterr().out.split())


def test_all_of_it_is_there(data, capsys):
    text = said(data, capsys, 0)
    assert "blip_laion_cc_sbu_558k.json: there, 5 samples" in text
    assert "LLaVA-Pretrain/images: there, all 5 images named" in text
    assert "llava_v1_5_mix665k.json: there, 49 samples" in text
    for part in PARTS:
        assert f"{data}/{part}: there, all 4 images named" in text
    assert "missing" not in text and "http" not in text


def test_nothing_is_there(tmp_path, capsys):
    text = said(tmp_path, capsys, 1)
    for name, url in URLS.items():
        assert f"{name}: missing from {url}" in text, name
    assert text.count("http") == len(URLS)


def test_what_is_missing_is_counted_and_its_origin_told(data, capsys):
    (data / "gqa" / "images" / "2.jpg").unlink()
    shutil.rmtree(data / "vg" / "VG_100K_2")
    images = data / "ocr_vqa" / "images"
    for number, ending in ((0, ".gif"), (1, ".png")):
        (images / f"{number}.jpg").rename(images / f"{number}{ending}")
    (images / "2.jpg").unlink()
    text = said(data, capsys, 1)
    assert f"gqa/images: 1 of 4 images named missing, the first gqa/images/2.jpg from {URLS['gqa/images']}" in text
    assert f"vg/VG_100K_2: missing, 4 images named from {URLS['vg/VG_100K_2']}" in text
    assert "ocr_vqa/images: 3 of 4 images named missing, the first ocr_vqa/images/0.jpg; 2 are there under" in text
    assert text.count("http") == 3


def test_without_a_data_file_the_files_are_counted(data, capsys):
    (data / "llava_v1_5_mix665k.json").unlink()
    shutil.rmtree(data / "coco")
    text = said(data, capsys, 1)
    assert f"llava_v1_5_mix665k.json: missing from {URLS['llava_v1_5_mix665k.json']}" in text
    assert f"coco/train2017: missing from {URLS['coco/train2017']}" in text
    assert "gqa/images: there, 4 files" in text


def test_names_of_no_published_folder(data, capsys):
    path = data / "llava_v1_5_mix665k.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), {"image": "mine/1.jpg"}, {"image": 7}]))
    assert "1 image of no folder above: see nemo-run data check" in said(data, capsys, 1)


def test_the_folder_of_the_pretraining_may_be_named_itself(data, capsys):
    text = said(data / "LLaVA-Pretrain", capsys, 1)
    assert f"{data}/LLaVA-Pretrain/images: there, all 5 images named" in text


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("none", "DIR none: does not exist"),
        ("llava_v1_5_mix665k.json", "DIR llava_v1_5_mix665k.json: is no folder"),
        (".", "llava_v1_5_mix665k.json: after 0 samples, at byte 0: expected a JSON array"),
    ],
)
def test_what_cannot_be_looked_at(word, message, data, capsys, monkeypatch):
    monkeypatch.chdir(data)
    (data / "llava_v1_5_mix665k.json").write_text("What?")
    assert main(["data", "layout", word]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and told.out == ""
