"""What a plan says of samples that are cut, against what the loaders of a training make of the same files."""

import json
from itertools import islice

import pytest
from PIL import Image

from neva_model.data import IGNORE_INDEX, build_train_loader, build_validation_loader, count_samples
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import DataError
from neva_recipes.plan import plan
from neva_recipes.plan.data import prompt_lengths
from neva_recipes.plan.data.files import check_files
from tests.data.inputs import byte_level_directory, make_recipe

__all__ = ["byte_level_directory", "make_recipe"]


def turns(question, *others):
    said = [question, *others]
    return {
        "conversations": [{"from": "gpt" if number % 2 else "human", "value": text} for number, text in enumerate(said)]
    }


SHORT, LONG = turns("Hi", "A seven."), turns("Well? " * 40, "A seven.")
PICTURE = {"image": "a.png"} | turns("<image>\nWhich?", "A seven.")
LONG_PICTURE = {"image": "a.png"} | turns("<image>\n" + "Which? " * 40, "A seven.")
LATE_PICTURE = {"image": "a.png"} | turns("Hi", "Hello.", "And now? " * 9 + "<image>", "A seven.")
FILES = {
    "pictures": [PICTURE, LONG_PICTURE],
    "long pictures among texts": [SHORT, SHORT, LONG_PICTURE],
    "long texts among pictures": [PICTURE, LONG],
    "late pictures": [LATE_PICTURE, LATE_PICTURE],
    "a late picture among others": [PICTURE, LATE_PICTURE],
    "more than are looked at": [LONG_PICTURE] * 40 + [PICTURE],
}
LENGTHS = (30, 38, 42, 60, 250, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuts")
    Image.new("RGB", (8, 8)).save(path / "a.png")
    for name, samples in FILES.items():
        (path / f"{name}.json").write_text(json.dumps(samples))
    return path


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    """So that a small file has more than are looked at."""
    monkeypatch.setattr(prompt_lengths, "SAMPLE", 20)
    prompt_lengths._measure.cache_clear()
    prompt_lengths._least.cache_clear()


def findings(recipe, code="samples-cut"):
    return [finding for finding in check_files(recipe) if finding.code == code]


def trains(recipe, tokenizer, run_dir):
    """Return whether an epoch can be trained and then validated with something to learn and to measure."""
    share = {"data_parallel_rank": 0, "data_parallel_size": 1, "pad_to_multiple_of": 1, "run_dir": run_dir}
    try:
        count = count_samples(recipe, tokenizer, run_dir=run_dir).one_pass
        loader = build_train_loader(recipe, tokenizer, consumed_samples=0, **share)
        for _ in islice(loader, count):
            pass
        if recipe.data.validation_data_path is None:
            return True
        steps = list(build_validation_loader(recipe, tokenizer, **share))
    except DataError:
        return False
    return any((microbatch["labels"] != IGNORE_INDEX).any() for step in steps for microbatch in step)


@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize("name", FILES)
def test_what_a_training_refuses_is_an_error_and_nothing_else(
    make_recipe, folder, tmp_path, byte_level_directory, name, policy
):
    tokenizer = load_tokenizer(str(byte_level_directory), vocab_size=None)
    path, verdicts = str(folder / f"{name}.json"), {}
    for length in LENGTHS:
        for role in ("training", "validation"):
            others = {"data_path": str(folder / "pictures.json"), "validation_data_path": path}
            recipe = make_recipe(
                tokenizer=str(byte_level_directory),
                conv_template="chatml",
                sequence_length=length,
                on_bad_sample=policy,
                micro_batch_size=1,
                global_batch_size=1,
                **(others if role == "validation" else {"data_path": path}),
            )
            errors = [finding for finding in findings(recipe) if finding.severity == "error"]
            verdicts[length, role] = bool(errors), not trains(recipe, tokenizer, tmp_path / f"{length} {role}")
    assert {key: said for key, (said, _) in verdicts.items()} == {key: real for key, (_, real) in verdicts.items()}
    assert {said for said, _ in verdicts.values()} == {True, False}


def test_the_way_out_leads_out(make_recipe, folder, byte_level_directory):
    path = str(folder / "pictures.json")
    settings = {"tokenizer": str(byte_level_directory), "conv_template": "chatml", "data_path": path}
    (finding,) = findings(make_recipe(**settings, sequence_length=30))
    assert finding.message == "no sample is left anything to learn: the least that one needs is 40 tokens"
    assert finding.remedies == ({"data.sequence_length": 320},)
    assert not findings(make_recipe(**settings, sequence_length=320))


def test_one_length_is_enough_for_the_template_and_all_samples(make_recipe, folder, byte_level_directory):
    path, other = str(folder / "pictures.json"), str(folder / "late pictures.json")
    settings = {"tokenizer": str(byte_level_directory), "conv_template": "chatml", "data_path": path}
    settings |= {"validation_data_path": other, "on_bad_sample": "skip"}
    found = plan(make_recipe(**settings, sequence_length=8)).errors
    proposed = [
        {one["data.sequence_length"] for one in each.remedies if "data.sequence_length" in one} for each in found
    ]
    lengths = [each for each in proposed if each]
    assert {each.code for each in found} >= {"image-does-not-fit", "samples-cut"} and len(lengths) == 3
    assert len({min(each) for each in lengths}) == 1
    errors = plan(make_recipe(**settings, sequence_length=min(lengths[0]))).errors
    assert not {each.code for each in errors} & {"image-does-not-fit", "samples-cut"}


@pytest.mark.parametrize(
    ("source", "end"),
    [
        (None, "; set data.sequence_length=7296 model.language.max_position_embeddings=7296"),
        ("owner/name", "; shorten the samples: the model has 4096 positions"),
    ],
)
def test_where_the_positions_end(make_recipe, tmp_path, byte_level_directory, source, end):
    (tmp_path / "chats.json").write_text(json.dumps([turns("Hi", "A seven. " * 1800)]))
    recipe = make_recipe(
        tokenizer=str(byte_level_directory),
        conv_template="chatml",
        data_path=str(tmp_path / "chats.json"),
        sequence_length=4096,
        language_from=source,
    )
    (finding,) = findings(recipe)
    assert finding.line().endswith(end)


def test_what_is_not_certain_is_a_warning(make_recipe, folder, byte_level_directory, monkeypatch):
    """Samples that nobody has looked at may be shorter; and so may all be where their tokens are only estimated."""
    monkeypatch.setattr(prompt_lengths, "_SMALL", 1000)
    path = str(folder / "more than are looked at.json")
    for tokenizer, estimated in ((str(byte_level_directory), ""), ("owner/name", ", by an estimate of their tokens")):
        recipe = make_recipe(tokenizer=tokenizer, conv_template="chatml", data_path=path, sequence_length=30)
        (finding,) = findings(recipe)
        assert finding.severity == "warning"
        assert finding.message == (
            f"100% of the 20 samples looked at are longer and lose their end, and 100% lose all that they teach"
            f"{estimated}"
        )


@pytest.mark.parametrize(("long", "said"), [(1, None), (2, "20% of the 10 samples looked at are longer")])
def test_few_cut_samples_are_no_matter(make_recipe, tmp_path, byte_level_directory, long, said):
    talk = turns("Hi", "A seven. " * 40)
    (tmp_path / "chats.json").write_text(json.dumps([SHORT] * (10 - long) + [talk] * long))
    recipe = make_recipe(
        tokenizer=str(byte_level_directory),
        conv_template="chatml",
        data_path=str(tmp_path / "chats.json"),
        sequence_length=60,
    )
    lines = [finding.message for finding in findings(recipe)]
    assert lines == ([f"{said} and lose their end"] if said else [])
