"""The weights beside adapters: they are kept, found again after a move, and asked for before anything starts."""

import json
import shutil
from pathlib import Path

import pytest

from neva_recipes.cli.main import main
from neva_recipes.run_directory.names import list_checkpoints
from tests.end_to_end.world import make_world

TINY = ("size=tiny", "data.sequence_length=32", "data.global_batch_size=2", "data.micro_batch_size=2")
STEPS = ("trainer.max_steps=2", "optim.warmup_ratio=none", "optim.warmup_steps=0", "optim.lr=1e-2")
SMALL = tuple(f"model.language.{name}" for name in ("num_layers=1", "hidden_size=64", "ffn_hidden_size=64"))
BESIDE = ("model.language.from_pretrained=base", "model.language.lora.rank=2")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def data(world, tmp_path_factory):
    lines = [json.dumps({"text": f"line {number} of some text"}) for number in range(60)]
    path = tmp_path_factory.mktemp("data") / "t.jsonl"
    path.write_text("\n".join(lines))
    return f"data.data_path={path}", f"data.tokenizer={world.tokenizer}"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A folder with a run, and one with adapters beside its weights."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["gpt.pretrain", *TINY, *STEPS, *SMALL, *data, "name=base"]) == 0
        assert main(["gpt.continue_pretrain", *TINY, *STEPS, *SMALL, *data, *BESIDE, "name=ad"]) == 0
        assert main(["convert", "ad", "peft", "--layout", "peft"]) == 0
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A copy of that folder, with nothing left where it was made."""
    folder = tmp_path / "moved"
    shutil.copytree(trained, folder, symlinks=True)
    trained.rename(tmp_path / "away")
    monkeypatch.chdir(folder)
    yield folder
    (tmp_path / "away").rename(trained)


def run_of(name):
    return next(Path("runs").glob(f"{name}-*"))


def test_runs_that_are_moved_together_find_each_other(here, capsys):
    assert main(["generate", "ad", "--prompt", "line", "--max-new-tokens", "2"]) == 0
    assert main(["merge", "ad", "merged"]) == 0
    shutil.rmtree(run_of("base"))
    capsys.readouterr()
    assert main(["merge", "ad", "other"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no such directory, nor is" in line and line.endswith("model.language that were there: put it back")


def test_a_merge_in_16_bits_is_verified_within_their_rounding(trained, data, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    words = [*TINY, *STEPS, *SMALL, *data, *BESIDE, "precision.precision=bf16", "name=bits"]
    assert main(["gpt.continue_pretrain", *words]) == 0
    capsys.readouterr()
    assert main(["merge", "bits", "of_bits", "--verify"]) == 0
    difference = float(capsys.readouterr().out.partition("differ by at most ")[2].split(";")[0])
    assert 1e-5 < difference < 0.05


@pytest.mark.parametrize("is_there", [True, False])
def test_a_run_that_goes_on_keeps_what_adapters_need(is_there, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["gpt.pretrain", *TINY, *STEPS, *SMALL, *data, "name=base"]) == 0
    assert main(["gpt.continue_pretrain", *TINY, *STEPS, *SMALL, *data, *BESIDE, "name=ad"]) == 0
    if not is_there:
        shutil.rmtree(run_of("ad"))
    assert main(["resume", "base", "trainer.max_steps=4"]) == 0
    steps = [path.name for path in list_checkpoints(run_of("base") / "checkpoints")]
    assert steps == (["step-00000002", "step-00000004"] if is_there else ["step-00000004"])
    if is_there:
        assert main(["generate", "ad", "--prompt", "line", "--max-new-tokens", "2"]) == 0


@pytest.mark.parametrize(
    ("source", "changes", "told"),
    [
        ("adaptors", (), "no such directory, expected a run with adapters or a directory of PEFT"),
        ("base", (), "its model.language has no adapters, expected a run with adapters or a directory of PEFT"),
        ("peft/adapter_config.json", (), "is a file, expected a run with adapters or a directory of PEFT"),
        ("peft", ("model.language.lora.rank=3",), "the adapters there have rank=2, alpha=4.0"),
        ("peft", ("model.language.lora.alpha=64",), "the adapters there have alpha=4.0"),
        ("peft", ("model.language.lora.kind=rslora",), "the adapters there have kind=lora"),
        ("ad", ("model.language.lora.target_modules=q_proj",), "the adapters there have target_modules=none"),
        ("ad", ("model.language.lora.layers=0",), "the adapters there have layers=none"),
    ],
)
def test_adapters_to_start_from_are_asked_for_before_anything_starts(
    source, changes, told, trained, data, monkeypatch, capsys
):
    monkeypatch.chdir(trained)
    before = sorted(path.name for path in Path("runs").iterdir())
    words = [*TINY, *STEPS, *SMALL, *data, *BESIDE, f"model.language.lora.from_pretrained={source}", *changes]
    assert main(["gpt.continue_pretrain", *words]) == 2
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in Path("runs").iterdir()) == before
