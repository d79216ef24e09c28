"""`nemo-run reshard` without a run: against Core's own loader, and back to the files that a checkpoint was made of."""

import os
import re
import resource
import shutil
import signal
import sys

import pytest
import torch
from transformers import LlamaTokenizer

from neva_model.checkpoints.converting.convert import convert
from neva_model.checkpoints.information import read_information, saved_recipe
from neva_model.checkpoints.load import build_saved
from neva_model.checkpoints.resharding.reshard import reshard
from neva_model.progress import ByteProgress
from neva_model.tokenizers import load_recipe_tokenizer
from neva_recipes.cli.main import main
from neva_recipes.run_directory.names import DESCRIPTIONS
from neva_recipes.storage.checkpoints import what_is_wrong
from neva_recipes.storage.tensors import checkpoint_tensors
from tests.converting.models import World
from tests.converting.test_bad_input import CHECKPOINTS, recorded

NAMES = ["llama", "llama tied", "llama one group, other head size", "qwen2", "phi3 grouped", "gpt2 untied", "llava"]


def weights(checkpoint):
    model, _ = build_saved(checkpoint, saved_recipe(checkpoint), read_information(checkpoint))
    return model.state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_core_loads_the_same_weights_from_it(name, world: World, tmp_path):
    source = world.checkpoint(name)
    layers = saved_recipe(source).model.language.num_layers
    reshard(source, tmp_path / "cut", 2, layers)
    assert what_is_wrong(tmp_path / "cut", with_shards=True) is None
    information, recipe = read_information(tmp_path / "cut"), saved_recipe(tmp_path / "cut")
    assert information.world_size == 2 * layers == recipe.trainer.devices
    assert (information.tensor_model_parallel_size, information.pipeline_model_parallel_size) == (2, layers)
    assert recipe.parallel.pipeline_model_parallel_size == layers
    ranks = {path.name.split("_")[2] for path in (tmp_path / "cut").glob("*.distcp")}
    assert ranks == {str(rank) for rank in range(2 * layers)}
    expected = weights(source)
    for name, tensor in weights(tmp_path / "cut").items():
        assert tensor is None or torch.equal(tensor, expected[name]), name


def test_it_is_converted_to_the_files_that_it_came_from(world: World, tmp_path):
    reshard(world.checkpoint("qwen2"), tmp_path / "cut", 2, 1)
    reshard(tmp_path / "cut", tmp_path / "whole", 1, 1)
    for checkpoint in ("cut", "whole"):
        kept = tmp_path / checkpoint / DESCRIPTIONS
        assert saved_recipe(tmp_path / checkpoint).data.tokenizer == str(kept)
        convert(tmp_path / checkpoint, tmp_path / f"{checkpoint} back")
        files = sorted(path.name for path in world.source("qwen2").iterdir())
        assert sorted(path.name for path in (tmp_path / f"{checkpoint} back").iterdir()) == files
        for file in files:
            assert (tmp_path / f"{checkpoint} back" / file).read_bytes() == (world.source("qwen2") / file).read_bytes()


@pytest.mark.parametrize("name", ["llama", "llava"])
def test_the_kept_files_of_a_checkpoint_that_has_moved_are_named_where_they_are(name, world: World, tmp_path):
    """It was converted elsewhere, and what lay there is gone; then what was made of it moves too."""
    convert(world.source(name), tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "moved")
    reshard(tmp_path / "moved", tmp_path / "cut", 2, 1)
    text = (tmp_path / "cut" / "recipe.yaml").read_text()
    assert f"tokenizer: {tmp_path / 'cut' / DESCRIPTIONS}\n" in text and f"{tmp_path}/first" not in text
    if name == "llava":
        assert f"from_pretrained: {tmp_path / 'cut' / DESCRIPTIONS}\n" in text
    (tmp_path / "cut").rename(tmp_path / "again")
    for checkpoint in ("moved", "again"):
        assert saved_recipe(tmp_path / checkpoint).data.tokenizer == str(tmp_path / checkpoint / DESCRIPTIONS)
    words = load_recipe_tokenizer(saved_recipe(tmp_path / "again"))
    oracle = LlamaTokenizer.from_pretrained(world.source(name), legacy=True)
    assert words.encode_text("what is", prefix=True) == oracle("what is", add_special_tokens=False)["input_ids"]


def test_a_folder_of_another_checkpoint_keeps_its_name(world: World, tmp_path):
    """A run that started from a converted one names its files; what is kept of an extended vocabulary is another's."""
    convert(world.source("llava"), tmp_path / "other")
    checkpoint = shutil.copytree(tmp_path / "other", tmp_path / "checkpoint")
    recipe = (checkpoint / "recipe.yaml").read_text()
    tokenizer = f"tokenizer: {tmp_path / 'other' / DESCRIPTIONS}"
    assert tokenizer in recipe
    recipe = recipe.replace(tokenizer, f"tokenizer: {tmp_path / 'extended' / DESCRIPTIONS}")
    (checkpoint / "recipe.yaml").write_text(recipe)
    found = saved_recipe(checkpoint)
    assert found.data.tokenizer == str(checkpoint / DESCRIPTIONS)
    assert found.model.vision.from_pretrained == str(tmp_path / "other" / DESCRIPTIONS)


def test_the_rows_of_words_keep_their_bits_whatever_pads_them(world: World, tmp_path):
    """421 rows are padded to 512, a multiple of 128, by one rank and by two, and the second has those of padding."""
    source, name = world.checkpoint("llama"), "language.embedding.word_embeddings.weight"
    reshard(source, tmp_path / "cut", 2, 1)
    stored = checkpoint_tensors(tmp_path / "cut")[name]
    assert checkpoint_tensors(source)[name].shape[0] == 512 == stored.shape[0]
    assert [(piece.first[0], piece.shape[0], piece.file) for piece in stored.pieces] == [
        (0, 256, "__0_0.distcp"),
        (256, 165, "__1_0.distcp"),
        (421, 91, "__1_0.distcp"),
    ]


@pytest.fixture
def refused(tmp_path, capsys):
    """Return a function that reshards and returns the one line that says why not; nothing may be left."""

    def run(source, *words):
        before = sorted(tmp_path.rglob("*"))
        assert main(["reshard", str(source), str(tmp_path / "out"), *words]) == 2
        told = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" written")]
        assert len(told) == 1 and told[0].startswith("error: "), told
        assert sorted(tmp_path.rglob("*")) == before
        return told[0]

    return run


@pytest.mark.parametrize("case", [case for case in CHECKPOINTS if case != "kept files"])
def test_a_checkpoint_that_is_damaged(case, world: World, tmp_path, refused):
    damage, message = CHECKPOINTS[case]
    checkpoint = shutil.copytree(world.checkpoint("llama"), tmp_path / "checkpoint")
    damage(checkpoint)
    assert re.search(message, refused(checkpoint, "--tp=2")), message
    assert not (checkpoint / "victim").exists()


@pytest.mark.parametrize(
    ("field", "other", "message"),
    [
        ("num_layers: 4", "num_layers: 2", r"has shape \[4, .*, its recipe needs .* in each of 2 layers"),
        (
            "share_embeddings_and_output_weights: false",
            "share_embeddings_and_output_weights: true",
            r"holds the tensor language.output_layer.weight, which belongs to no weight of its recipe",
        ),
    ],
)
def test_what_the_recipe_does_not_tell_of_is_not_left_out(field, other, message, world: World, tmp_path, refused):
    checkpoint = shutil.copytree(world.checkpoint("llama"), tmp_path / "checkpoint")
    recipe = checkpoint / "recipe.yaml"
    assert field in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(field, other, 1))
    recorded(checkpoint)
    assert re.search(message, refused(checkpoint, "--tp=2"))


def test_a_layout_that_does_not_divide_the_model(world: World, refused):
    llama = world.checkpoint("llama")
    assert "--tp=3 --pp=1: 4 heads are not a multiple of 3" in refused(llama, "--tp=3")
    assert "--tp=1 --pp=3: 4 layers do not divide over 3 pipeline stages" in refused(llama, "--pp=3")
    assert "is laid out as TP1 x PP1 already" in refused(llama)
    assert "is a Hugging Face directory: nemo-run convert" in refused(world.source("llama"), "--tp=2")
    assert "argument --tp: '0': expected an integer >= 1" in refused(llama, "--tp=0")


def test_a_target_that_exists_stays_as_it_is(world: World, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert refused(world.checkpoint("llama"), "--tp=2").endswith("out: exists already; name a directory that does not")


def test_a_disk_that_takes_no_more_leaves_nothing(world: World, tmp_path):
    """A limit on the size of files ends in the same place as a full disk."""
    source, told = world.checkpoint("llama"), tmp_path / "told"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        sys.stderr = told.open("w")
        code = main(["reshard", str(source), str(tmp_path / "out"), "--tp=2"])
        sys.stderr.flush()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert told.read_text() == f"error: {tmp_path / 'out'}: cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == [told]


def test_what_is_killed_leaves_nothing_that_looks_whole(world: World, tmp_path, monkeypatch):
    source = world.checkpoint("llama")
    child = os.fork()
    if child == 0:
        # In the middle of the weights.
        monkeypatch.setattr(ByteProgress, "add", lambda self, count: os.kill(os.getpid(), signal.SIGKILL))
        reshard(source, tmp_path / "out", 2, 1)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [f".out.unfinished-{child}"]
    reshard(source, tmp_path / "out", 2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
