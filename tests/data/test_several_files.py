"""Several data files are read as one whose samples follow each other, each sample named by its own file."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from neva_model.data import build_train_loader, build_validation_loader, count_samples
from neva_recipes.config import DataError, TextDataConfig


def record(word, *, image=None):
    question = "What is it?" if image is None else "<image>\nWhat is it?"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"word {word}"}]
    return {"id": f"id-{word}", "conversations": turns} | ({"image": image} if image else {})


@pytest.fixture
def files(tmp_path):
    """Three files of 3, 2 and 4 samples, two of them in folders of their own with an image of the same name."""
    names = []
    for folder, name, first, count in (("one", "a.json", 0, 3), ("two", "b.jsonl", 3, 2), ("two", "c.json", 5, 4)):
        (tmp_path / folder).mkdir(exist_ok=True)
        colour = (255, 0, 0) if folder == "one" else (0, 0, 255)
        Image.new("RGB", (28, 28), colour).save(tmp_path / folder / "same.png")
        records = [record(number, image=None if number % 2 else "same.png") for number in range(first, first + count)]
        lines = name.endswith(".jsonl")
        text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
        (tmp_path / folder / name).write_text(text)
        names.append(str(tmp_path / folder / name))
    return names


def words(loader, tokenizer):
    """Return the numbers in the answers of a loader's rows, and the dominant colour of each image in its order."""
    rows, images = [], []
    for step in loader:
        for microbatch in step:
            for labels in microbatch["labels"].tolist():
                rows += [int(number) for number in re.findall(r"word (\d+)", tokenizer.decode(labels))]
            images += ["red" if image[0].mean() > image[2].mean() else "blue" for image in microbatch["images"]]
    return rows, images


@pytest.mark.parametrize("as_list", [True, False])
def test_samples_follow_each_other_with_the_images_of_their_folders(
    tmp_path, files, make_recipe, byte_level_tokenizer, as_list
):
    named = files if as_list else ",".join(files)
    single = make_recipe(
        data_path=named, validation_data_path=named, dataloader_type="single", global_batch_size=3, micro_batch_size=1
    )
    place = {"run_dir": tmp_path / "run", "data_parallel_rank": 0, "data_parallel_size": 1, "pad_to_multiple_of": 1}
    assert count_samples(single, byte_level_tokenizer, run_dir=tmp_path / "run").one_pass == 9
    trained = build_train_loader(single, byte_level_tokenizer, consumed_samples=0, **place)
    validated = build_validation_loader(single, byte_level_tokenizer, **place)
    assert words(trained, byte_level_tokenizer) == (list(range(9)), ["red", "red", "blue", "blue", "blue"])
    # In a validation the files take turns, a batch each, and the last batch of each is filled up.
    assert words(validated, byte_level_tokenizer)[0] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert validated.files.tolist() == [0, 1, 2, 2]
    first = [words([step], byte_level_tokenizer)[0] for step in validated]
    assert first == [[0, 1, 2], [3, 4], [5, 6, 7], [8]]
    # A resume in the middle of the second file goes on there.
    resumed = build_train_loader(single, byte_level_tokenizer, consumed_samples=3, **place)
    assert words(resumed, byte_level_tokenizer)[0] == list(range(3, 9))


def test_all_are_shuffled_together(tmp_path, files, make_recipe, byte_level_tokenizer):
    recipe = make_recipe(data_path=files, global_batch_size=9, micro_batch_size=1)
    loader = build_train_loader(
        recipe,
        byte_level_tokenizer,
        run_dir=tmp_path / "run",
        data_parallel_rank=0,
        data_parallel_size=1,
        consumed_samples=0,
        pad_to_multiple_of=1,
    )
    first, _ = words([next(iter(loader))], byte_level_tokenizer)
    assert sorted(first) == list(range(9))
    assert sorted(first[:3]) != [0, 1, 2]


def test_a_sample_is_named_by_its_own_file(tmp_path, files, make_recipe, byte_level_tokenizer):
    last = Path(files[2])
    records = json.loads(last.read_text())
    records[1]["conversations"] = []
    records[3]["image"] = "gone.png"
    last.write_text(json.dumps(records))
    recipe = make_recipe(data_path=files, global_batch_size=3, micro_batch_size=1)
    with pytest.raises(DataError) as refused:
        count_samples(recipe, byte_level_tokenizer, run_dir=tmp_path / "run")
    assert "2 of 9 samples are bad" in str(refused.value)
    assert f"{last}: sample 1 (id 'id-6')" in str(refused.value)
    skipping = make_recipe(data_path=files, global_batch_size=3, micro_batch_size=1, on_bad_sample="skip")
    assert count_samples(skipping, byte_level_tokenizer, run_dir=tmp_path / "run").one_pass == 9
    report = [json.loads(line) for line in (tmp_path / "run/bad_samples.jsonl").read_text().splitlines()]
    assert [(entry["file"], entry["sample"]) for entry in report] == [(str(last), 1), (str(last), 3)]


def test_windows_of_texts(tmp_path, make_recipe, byte_level_tokenizer):
    (tmp_path / "a.txt").write_text("abcdefg\n")
    (tmp_path / "b.jsonl").write_text('{"text": "xyz"}\n')
    recipe = make_recipe(
        TextDataConfig,
        data_path=f"{tmp_path}/a.txt,{tmp_path}/b.jsonl",
        sequence_length=4,
        global_batch_size=1,
        micro_batch_size=1,
        dataloader_type="single",
    )
    place = {"run_dir": tmp_path / "run", "data_parallel_rank": 0, "data_parallel_size": 1, "pad_to_multiple_of": 1}
    rows = [
        byte_level_tokenizer.decode(microbatch["labels"][0].tolist())
        for (microbatch,) in build_train_loader(recipe, byte_level_tokenizer, consumed_samples=0, **place)
    ]
    # Each file begins with its begin token, which nothing predicts.
    text = "".join(rows)
    assert text.index("abcdefg") < text.index("xyz")
    assert count_samples(recipe, byte_level_tokenizer, run_dir=tmp_path / "run").one_pass == len(rows)


def test_a_missing_file_is_named(tmp_path, files, make_recipe, byte_level_tokenizer):
    recipe = make_recipe(data_path=[files[0], str(tmp_path / "none.json")], global_batch_size=1, micro_batch_size=1)
    with pytest.raises(DataError, match=r"none\.json: cannot be read: No such file"):
        count_samples(recipe, byte_level_tokenizer, run_dir=tmp_path / "run")
