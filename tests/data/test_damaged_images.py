"""Damaged pictures are met before the first step, as far as there is time to decode the pictures of a file."""

import json

import numpy as np
import pytest
from PIL import Image

from neva_model.data import count_samples
from neva_model.data.images import decoding
from neva_model.data.index import BAD, FINE, SampleIndex, SampleRules
from neva_model.data.llava import LlavaDataset
from neva_recipes.config import DataError
from neva_recipes.prompts.templates import get_template
from tests.data.test_loader import write_samples


def noise(path, number):
    """Write a picture that no format can make small."""
    Image.effect_noise((64, 64), 60 + number).convert("RGB").save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flip(path):
    """Change a byte in the middle of the pixels, as a bad disk does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {"cut.jpg": cut, "cut.jpeg": cut, "cut.png": cut, "flipped.png": flip, "cut.webp": cut, "cut.gif": cut}


@pytest.fixture
def pictures(tmp_path):
    """Forty samples with a picture each; six of these are damaged, in a folder below and by an unusual path too."""
    (tmp_path / "below").mkdir()
    damaged = dict(zip(range(3, 40, 6), DAMAGES, strict=False))
    names = [f"below/{damaged.get(number, f'{number}.png')}" for number in range(40)]
    for number, name in enumerate(names):
        noise(tmp_path / name, number)
        if number in damaged:
            DAMAGES[damaged[number]](tmp_path / name)
    names[9] = f"below/../{names[9]}"  # a name that no listing holds
    path = write_samples(tmp_path, 40, bad={number: {"image": name} for number, name in enumerate(names)})
    records = json.loads(path.read_text())
    for record in records:
        record["conversations"][0]["value"] = "<image>\nWhat is shown?"
    path.write_text(json.dumps(records))
    return path


def states(path):
    index = SampleIndex(path, path.parent / "cache", SampleRules(get_template("v1"), path.parent))
    return [number for number, state in enumerate(index.states.tolist()) if state == BAD], index


def test_every_damaged_picture_is_found(pictures, capfd):
    bad, index = states(pictures)
    assert bad == [3, 9, 15, 21, 27, 33]
    assert set(index.states.tolist()) == {BAD, FINE}
    assert capfd.readouterr().out == ""


def test_the_names_of_a_folder_are_compared_once_for_all_that_are_damaged(pictures, monkeypatch):
    compared, compare = [], np.isin
    monkeypatch.setattr(np, "isin", lambda *given: compared.append(given) or compare(*given))
    assert states(pictures)[0] == [3, 9, 15, 21, 27, 33]
    # Of each of the two folders once for what its listing lacks, and once for what is damaged.
    assert len(compared) <= 4


def test_they_are_decoded_once_for_the_same_data(pictures):
    bad, _ = states(pictures)
    cut(pictures.parent / "below" / "4.png")
    assert states(pictures)[0] == bad
    # Another file of samples is other data.
    pictures.write_text(pictures.read_text() + "\n")
    assert states(pictures)[0] == sorted([*bad, 4])


def test_a_training_is_refused_before_it_begins(pictures, make_recipe, byte_level_tokenizer):
    recipe, run = make_recipe(data_path=str(pictures)), pictures.parent / "run"
    with pytest.raises(DataError) as raised:
        count_samples(recipe, byte_level_tokenizer, run_dir=run)
    first = f"sample 3 (id 'id-3'): image file {pictures.parent / 'below/cut.jpg'} cannot be decoded: "
    begin = f"{pictures}: 6 of 40 samples are bad (data.on_bad_sample=skip passes over such samples): {first}"
    assert str(raised.value).startswith(begin) and str(raised.value).endswith("; ...")
    # Pictures that have been got again are not told of, without another look at all of them.
    for name in DAMAGES:
        noise(pictures.parent / "below" / name, 1)
    assert count_samples(recipe, byte_level_tokenizer, run_dir=run).one_pass == 40


def test_a_training_that_skips_them_names_each_once(pictures, make_recipe, byte_level_tokenizer, capfd):
    recipe, run = make_recipe(data_path=str(pictures), on_bad_sample="skip"), pictures.parent / "run"
    for _ in range(2):
        assert count_samples(recipe, byte_level_tokenizer, run_dir=run).usable == 34
        lines = (run / "bad_samples.jsonl").read_text().splitlines()
        assert [json.loads(line)["sample"] for line in lines] == [3, 9, 15, 21, 27, 33]
    assert f"{pictures}: of 40 samples 6 are bad: passed over" in capfd.readouterr().out


def test_what_there_was_no_time_for_is_told_and_met_later(
    pictures, monkeypatch, capfd, make_recipe, byte_level_tokenizer
):
    monkeypatch.setattr(decoding, "_SECONDS", -1)
    bad, _ = states(pictures)
    assert bad == []
    assert capfd.readouterr().out == (
        f"note: {pictures}: decoded 0 of 40 images in the time for it; "
        "a damaged one among the others shows when it is met\n"
    )
    recipe = make_recipe(data_path=str(pictures))
    dataset = LlavaDataset(
        recipe.data, str(pictures), recipe.model.vision, byte_level_tokenizer, pictures.parent / "cache"
    )
    with pytest.raises(DataError, match=r"sample 3 \(id 'id-3'\): image file .*cut\.jpg cannot be decoded"):
        dataset.load(3)
