"""What is wrong with adapters is told in one line that names the file, before anything is written."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from neva_recipes.cli.main import main
from tests.end_to_end.world import make_world

TINY = ("size=tiny", "data.sequence_length=32", "data.global_batch_size=2", "data.micro_batch_size=2")
STEPS = ("trainer.max_steps=2", "optim.warmup_ratio=none", "optim.warmup_steps=0", "optim.lr=1e-2")
SMALL = tuple(f"model.language.{name}" for name in ("num_layers=1", "hidden_size=64", "ffn_hidden_size=64"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    """A folder with a run, one of adapters beside it, and these in PEFT's format."""
    folder = tmp_path_factory.mktemp("adapters")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "t.jsonl").write_text(
            "".join(json.dumps({"text": f"line {n} of some text"}) + "\n" for n in range(60))
        )
        data = ("data.data_path=t.jsonl", f"data.tokenizer={world.tokenizer}")
        assert main(["gpt.pretrain", *TINY, *STEPS, *SMALL, *data, "name=base"]) == 0
        assert main(["export", "base", "hf"]) == 0
        (folder / "hf" / "digests.json").unlink(missing_ok=True)
        adapters = ("model.language.from_pretrained=hf", "model.language.lora.rank=2", "name=ad")
        assert main(["gpt.continue_pretrain", *TINY, *STEPS, *SMALL, *data, *adapters]) == 0
        assert main(["convert", "ad", "peft", "--layout", "peft"]) == 0
    return folder


@pytest.fixture
def told(folder, tmp_path, monkeypatch, capsys):
    """Return a function that runs the command beside copies of the runs, and returns its code and its last line."""
    shutil.copytree(folder, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")

    def run(*words):
        capsys.readouterr()
        code = main([*words])
        lines = capsys.readouterr().err.strip().splitlines()
        return code, lines[-1] if lines else ""

    return run


BESIDE = "holds adapters and not the weights beside them: nemo-run merge RUN DIR makes a directory of both"


def test_a_checkpoint_of_adapters_has_no_weights_to_take(told, world):
    data = ("data.data_path=t.jsonl", f"data.tokenizer={world.tokenizer}")
    for words in (
        ("gpt.continue_pretrain", *TINY, *STEPS, *SMALL, *data, "model.language.from_pretrained=ad"),
        ("reshard", "ad", "out", "--tp", "2"),
        ("extend-vocab", "ad", "--tokenizer", str(world.tokenizer), "out"),
    ):
        code, line = told(*words)
        assert code == 2 and line.endswith(BESIDE), line


def test_a_run_without_adapters_has_none_to_merge_or_write(told):
    code, line = told("merge", "base", "out")
    assert code == 2 and line.endswith("has no adapters to merge: nemo-run export or convert writes its model")
    code, line = told("convert", "base", "out", "--layout", "peft")
    assert code == 2 and line.endswith("its model has no adapters: model.language.lora is none in its recipe")


@pytest.mark.parametrize("command", [("merge", "ad", "out"), ("generate", "ad", "--prompt=line")])
def test_weights_beside_adapters_that_have_gone_or_changed(told, folder, command, tmp_path):
    shutil.rmtree(tmp_path / "here" / "hf")  # else the copies of the runs find this one, which moved with them
    weights = folder / "hf" / "model.safetensors"
    before = weights.read_bytes()
    try:
        tensors = load_file(weights)
        save_file({name: 2 * value for name, value in tensors.items()}, weights, metadata={"format": "pt"})
        code, line = told(*command)
        assert code == 2 and line.startswith(f"error: {folder / 'hf'}: has changed, and the adapters were trained ")
        weights.parent.rename(folder / "away")
        code, line = told(*command)
        assert code == 2 and line == (
            f"error: {folder / 'hf'}: no such directory, nor is {tmp_path / 'here' / 'hf'}, but the adapters were "
            "trained beside the weights of model.language that were there: put it back"
        )
    finally:
        (folder / "away").rename(folder / "hf")
        weights.write_bytes(before)
    assert told(*command)[0] == 0


@pytest.fixture
def launch(told, world, tmp_path):
    """Return a function that starts a training beside `base`, and returns the error that ends it."""
    data = ("data.data_path=t.jsonl", f"data.tokenizer={world.tokenizer}", "model.language.from_pretrained=base")

    def launch(*words, source="peft"):
        start = f"model.language.lora.from_pretrained={source}"
        before = set((tmp_path / "here" / "runs").iterdir())
        code, line = told("gpt.continue_pretrain", *TINY, *STEPS, *SMALL, *data, start, *words)
        assert code != 0
        logs = [log for run in set((tmp_path / "here" / "runs").iterdir()) - before for log in run.rglob("*.log")]
        lines = [said for log in logs for said in log.read_text().splitlines() if said.startswith("error: ")]
        return lines[-1] if lines else line  # of the worker, or of the plan

    return launch


def test_damaged_or_other_files_of_peft(launch, tmp_path):
    assert "the adapters there have rank=2" in launch("model.language.lora.rank=3")
    dora = launch("model.language.lora.rank=2", "model.language.lora.kind=dora")
    assert "the adapters there have kind=lora; set model.language.lora.kind=lora" in dora
    tensors = load_file("peft/adapter_model.safetensors")
    save_file(
        {name: value for name, value in tensors.items() if "q_proj" not in name}, "peft/adapter_model.safetensors"
    )
    assert "has 6 adapters, the recipe has 7 of model.language.lora" in launch("model.language.lora.rank=2")
    (tmp_path / "here" / "peft" / "adapter_model.safetensors").write_bytes(b"{}")
    assert "adapter_model.safetensors: cannot be read: " in launch("model.language.lora.rank=2")


RANK = "model.language.lora.rank=2"


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [
        ({"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 30}}, "30"),
        ({"rank_pattern": {"q_proj": 16}}, "0.5"),
    ],
)
def test_adapters_that_counted_more_or_less(settings, alpha, launch, tmp_path):
    path = tmp_path / "here" / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    line = launch(RANK)
    assert "peft: layers.0.self_attn.q_proj was trained with a factor of " in line
    assert line.endswith(f"alpha and rank of the recipe make 2: set model.language.lora.alpha={alpha}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_alpha": 64}, None),
        ({"use_rslora": True}, None),
        ({"peft_type": "IA3"}, "has peft_type=IA3, expected peft_type=LORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "has init_lora_weights=pissa_niter_4, so they were trained beside ot"),
        ({"alpha_pattern": {"(": 2}}, "alpha_pattern cannot be read: "),
        ({"lora_alpha": None}, "lora_alpha is None, expected a positive number"),
    ],
)
def test_other_kinds_of_adapters(settings, message, launch, tmp_path):
    path = tmp_path / "here" / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    line = launch(RANK)
    assert "the adapters there have " in line if message is None else f"peft/adapter_config.json: {message}" in line


def test_adapters_that_would_be_left_out(launch, tmp_path):
    one = "model.language.lora.target_modules=q_proj"
    assert launch(RANK, one).endswith("peft: has 7 adapters, the recipe has 1 of model.language.lora")
    assert "the adapters there have target_modules=none" in launch(RANK, one, source="ad")
    assert "the adapters there have alpha=4" in launch(RANK, "model.language.lora.alpha=1", source="ad")
    weights = tmp_path / "here" / "peft" / "adapter_model.safetensors"
    tensors = load_file(weights)
    # What PEFT saves for modules_to_save and for bias.
    for name in ("base_model.model.lm_head.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias"):
        save_file({**tensors, name: tensors[min(tensors)].clone()}, weights)
        assert f"holds {name}, which is no matrix beside a linear layer and would be left out: " in launch(RANK)
    weights.rename(weights.with_suffix(".bin"))
    assert "peft: has no adapter_model.safetensors: load it with PEFT" in launch(RANK)
