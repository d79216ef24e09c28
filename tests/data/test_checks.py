"""Every record is checked before a training begins: bad ones end it there, what teaches nothing is passed over."""

import json
from itertools import islice

import pytest
from PIL import Image

from neva_model.data import build_train_loader, build_validation_loader, count_samples
from neva_model.data import index as index_module
from neva_model.data.images.there import ImageNames
from neva_recipes.config import DataError
from tests.data.test_loader import flat, positions, write_samples

EMPTY = {"conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": " "}]}
ABSENT = {"image": "absent.png"}
ROLES = {"conversations": [{"from": "gpt", "value": "A"}]}


@pytest.fixture
def check(tmp_path, make_recipe, byte_level_tokenizer):
    """Return a function that checks the data of a recipe as a run does before it trains."""

    def count(path, **fields):
        recipe = make_recipe(data_path=str(path), global_batch_size=2, micro_batch_size=1, **fields)
        return count_samples(recipe, byte_level_tokenizer, run_dir=tmp_path / "run").one_pass, recipe

    return count


def reported(tmp_path):
    lines = (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()
    return {(entry["file"], entry["sample"]): entry["reason"] for entry in map(json.loads, lines)}


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_sample_that_teaches_nothing_ends_no_run(tmp_path, check, byte_level_tokenizer, capfd, policy):
    path = write_samples(tmp_path, 9, bad={3: EMPTY})
    count, recipe = check(path, on_bad_sample=policy, dataloader_type="single", trainer={"max_steps": 4})
    assert count == 8
    assert reported(tmp_path) == {(str(path), 3): "no answer: nothing to learn from"}
    out = capfd.readouterr().out
    assert f"{path}: of 9 samples 1 teaches nothing: passed over, and named in bad_samples.jsonl" in out
    share = {"data_parallel_rank": 0, "data_parallel_size": 1, "pad_to_multiple_of": 1, "run_dir": tmp_path / "run"}
    loader = build_train_loader(recipe, byte_level_tokenizer, consumed_samples=0, **share)
    # The next sample with an image stands in for it.
    assert positions(flat(loader), byte_level_tokenizer) == [0, 1, 2, 4, 4, 5, 6, 7]
    assert loader.skipped_samples == 1
    assert len(reported(tmp_path)) == 1


def test_what_is_cut_before_its_answer_is_passed_over_too(tmp_path, check, byte_level_tokenizer):
    long = {"conversations": [{"from": "human", "value": "Q " * 400}, {"from": "gpt", "value": "A"}]}
    path = write_samples(tmp_path, 9, bad={2: long})
    _, recipe = check(path, sequence_length=300, validation_data_path=str(path))
    share = {"data_parallel_rank": 0, "data_parallel_size": 1, "pad_to_multiple_of": 1, "run_dir": tmp_path / "run"}
    loader = build_train_loader(recipe, byte_level_tokenizer, consumed_samples=0, **share)
    seen = positions(flat(islice(loader, 9)), byte_level_tokenizer)
    assert len(seen) == 18 and 2 not in seen
    seen = positions(flat(build_validation_loader(recipe, byte_level_tokenizer, **share)), byte_level_tokenizer)
    assert seen == [0, 1, 3, 4, 5, 6, 7, 8]
    ((place, reason),) = reported(tmp_path).items()
    assert place == (str(path), 2) and reason.startswith("no answer left in the first 300 of ")


@pytest.mark.parametrize("role", ["training", "validation"])
def test_bad_samples_anywhere_end_the_run_before_it_begins(tmp_path, check, role):
    good = write_samples(tmp_path, 4, name="good.json")
    path = write_samples(tmp_path, 40, bad={25: EMPTY, 30: ABSENT, 35: ROLES, 36: ABSENT, 39: ABSENT})
    files = {"validation_data_path": str(path)} if role == "validation" else {}
    for _ in range(2):
        with pytest.raises(DataError) as raised:
            check(good if files else path, **files)
        said = str(raised.value)
        assert said.startswith(
            f"{path}: 4 of 40 samples are bad (data.on_bad_sample=skip passes over such samples): "
            f"sample 30 (id 'id-30'): "
            f"image file {tmp_path / 'absent.png'} does not exist (image names are relative to data.image_folder); "
            "sample 35 (id 'id-35'): turn 1 is from gpt"
        )
        assert said.endswith("; ...") and "sample 39" not in said
    # What has been mended needs no new index.
    Image.new("RGB", (8, 8)).save(tmp_path / "absent.png")
    with pytest.raises(DataError, match=r"sample 35 \(id 'id-35'\): turn 1 is from gpt") as raised:
        check(good if files else path, **files)
    assert "of 40 samples" not in str(raised.value)


def test_bad_samples_that_are_skipped_are_all_named_beforehand(tmp_path, check, capfd):
    path = write_samples(tmp_path, 9, bad={1: ABSENT, 3: EMPTY, 4: ROLES})
    assert check(path, on_bad_sample="skip", validation_data_path=str(path))[0] == 9
    assert set(reported(tmp_path)) == {(str(path), number) for number in (1, 3, 4)}
    assert capfd.readouterr().out.count("of 9 samples 2 are bad and 1 teaches nothing") == 2


def test_a_kind_of_samples_without_a_good_one_is_an_error_beforehand(tmp_path, check):
    path = write_samples(tmp_path, 6, bad=dict.fromkeys((0, 1, 3, 4), ABSENT))
    with pytest.raises(DataError, match="every one of the 4 samples with an image is unusable"):
        check(path, on_bad_sample="skip")
    good = write_samples(tmp_path, 6, name="good.json")
    check(good, on_bad_sample="skip", validation_data_path=str(path))
    path = write_samples(tmp_path, 3, bad=dict.fromkeys(range(3), EMPTY), name="silent.json")
    with pytest.raises(DataError, match="every one of the 3 samples is unusable"):
        check(good, on_bad_sample="skip", validation_data_path=str(path))


def test_records_are_checked_once_for_a_run_and_its_resumes(tmp_path, check, monkeypatch):
    path = write_samples(tmp_path, 9)
    check(path)
    monkeypatch.setattr(index_module, "read_sample", None)
    assert check(path)[0] == 9
    with pytest.raises(TypeError):
        check(path, conv_template="chatml")
    with pytest.raises(TypeError):
        check(path, image_folder=str(tmp_path / "run"))


@pytest.mark.parametrize("listed", [1, 10**6])
def test_missing_images_are_those_that_are_no_files(tmp_path, monkeypatch, listed):
    monkeypatch.setattr("neva_model.data.images.there._LISTED_AT_LEAST", listed)
    monkeypatch.setattr("neva_model.data.images.there._LISTED_PER_NAME", listed)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/folder.png").mkdir()
    for name in ("x.png", "a/x.png", "a/b/\u00e9 'q'.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "link.png").symlink_to("x.png")
    (tmp_path / "dangling.png").symlink_to("nothing")
    (tmp_path / "c").symlink_to("a")
    names = [
        *("x.png", "a/x.png", "a/b/\u00e9 'q'.png", "link.png", "c/x.png", "a/../x.png", "./x.png", "a//x.png"),
        *("y.png", "a/y.png", "nowhere/x.png", "a/folder.png", "dangling.png", "a", "", "n" * 300, "x\0.png", "\ud800"),
        *(str(tmp_path / "x.png"), str(tmp_path / "y.png"), "x.png"),
    ]
    told = []
    collected = ImageNames()
    for position, name in enumerate(names):
        collected.add(position, name)

    def is_file(name):
        try:
            return (tmp_path / name).is_file()
        except (OSError, ValueError):
            return False

    expected = [position for position, name in enumerate(names) if not is_file(name)]
    assert collected.unusable(tmp_path, names.__getitem__, told.append) == expected
    # Each of the steps may take minutes, on a slow file system.
    for step in ("folders of images listed", "images looked for one by one", "images looked at", "images decoded"):
        assert any(line.endswith(step) for line in told)
    assert len(expected) == 11
