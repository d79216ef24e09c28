"""What cannot be converted: one line with file and tensor, exit code 2, nothing half-written."""

import errno
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from neva_recipes.cli.main import main
from neva_recipes.run_directory.names import INFORMATION_FILE
from neva_recipes.storage.checkpoints import read_record, record_text
from tests.converting.models import World


class Harmful:
    """Code that a pickle would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def configure(source, **fields):
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def truncated(source):
    cut(sorted(source.glob("*.safetensors"))[2])


def missing_shard(source):
    sorted(source.glob("*.safetensors"))[1].unlink()


def other_index(source):
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "model-00008-of-00008.safetensors"
    path.write_text(json.dumps(index))


def twice(source):
    shutil.copy(min(source.glob("*.safetensors")), source / "model-00009-of-00009.safetensors")
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["x"] = "model-00009-of-00009.safetensors"
    path.write_text(json.dumps(index))


def rewritten(source, change):
    tensors = {}
    for file in source.glob("*.safetensors"):
        tensors |= load_file(file)
        file.unlink()
    change(tensors)
    (source / "model.safetensors.index.json").unlink()
    save_file(tensors, source / "model.safetensors")


def lacking(source):
    rewritten(source, lambda tensors: tensors.pop("model.layers.2.mlp.up_proj.weight"))


def strange(source):
    rewritten(source, lambda tensors: tensors.update({"model.layers.1.adapter": torch.zeros(2)}))


def quantized(source):
    rewritten(source, lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"].to(torch.int8)}))


def with_code(source):
    rewritten(source, lambda tensors: None)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save({**tensors, "more": Harmful(str(source / "victim"))}, source / "pytorch_model.bin")


def empty(source):
    for file in source.iterdir():
        file.unlink()


DIRECTORIES = {
    "truncated": (truncated, r"model-00003-of-\d+.safetensors: is damaged or incomplete"),
    "missing shard": (missing_shard, r"model-00002-of-\d+.safetensors: is missing, but model.safetensors.index.json"),
    "index of other files": (other_index, r"model-00008-of-00008.safetensors: is missing, but"),
    "a tensor twice": (twice, r"holds .*, which model-0000\d-of-0000\d.safetensors holds too"),
    "lacking": (lacking, r"has no tensor model.layers.2.mlp.up_proj.weight"),
    "strange": (strange, r"model.layers.1.adapter is not understood"),
    "quantized": (quantized, r"lm_head.weight is of type I8"),
    "code": (with_code, r"pytorch_model.bin: holds code beside its tensors \((posix|os)\.mkdir\), which is never run"),
    "empty": (empty, r"neither a run directory nor a checkpoint"),
    "shape": (
        lambda source: configure(source, intermediate_size=40),
        r"safetensors: model.layers.0.mlp.\w+.weight has",
    ),
    "architecture": (lambda source: configure(source, model_type="bert"), r"model_type is bert: expected llama"),
    "unknown key": (lambda source: configure(source, final_logit_softcapping=30.0), r"final_logit_softcapping is 30.0"),
    "no configuration": (lambda source: (source / "config.json").unlink(), r"config.json: is missing"),
    "an adapter": (lambda source: (source / "adapter_config.json").write_text("{}"), r"an adapter lies there"),
    "broken configuration": (lambda source: cut(source / "config.json"), r"config.json: cannot be read"),
}


@pytest.fixture
def refused(tmp_path, capsys):
    """Return a function that converts and returns the one line that says why not; nothing may be left."""

    def convert(source, *words):
        before = sorted(tmp_path.rglob("*"))
        assert main(["convert", str(source), str(tmp_path / "out"), *words]) == 2
        lines = capsys.readouterr().err.splitlines()
        told = [line for line in lines if not line.startswith("note: ") and not line.endswith(" written")]
        assert len(told) == 1 and told[0].startswith("error: "), lines
        assert sorted(tmp_path.rglob("*")) == before
        return told[0]

    return convert


@pytest.mark.parametrize("case", DIRECTORIES)
def test_a_directory_that_is_not_understood(case, world: World, tmp_path, refused):
    damage, message = DIRECTORIES[case]
    source = shutil.copytree(world.source("llama"), tmp_path / "source")
    damage(source)
    assert re.search(message, refused(source)), message
    assert not (source / "victim").exists()


def shard_cut(checkpoint):
    cut(checkpoint / "__0_0.distcp", 0.9)


def shard_changed(checkpoint):
    content = bytearray((checkpoint / "__0_0.distcp").read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / "__0_0.distcp").write_bytes(content)


def recorded(checkpoint):
    """Have the record say that the files are as they should be, as if they had been written so."""
    from neva_recipes.storage.digests import digest_of, files_below

    record = read_record(checkpoint)
    files = {name: path for name, path in files_below(checkpoint).items() if name != INFORMATION_FILE}
    record["files"] = {name: path.stat().st_size for name, path in files.items()}
    record["digests"] = {name: digest_of(path) for name, path in files.items()}
    (checkpoint / INFORMATION_FILE).write_text(record_text(record))


def table_with_code(checkpoint):
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Harmful(str(checkpoint / "victim"))))
    recorded(checkpoint)


def shard_with_code(checkpoint):
    path = checkpoint / "__0_0.distcp"
    torch.save(Harmful(str(checkpoint / "victim")), checkpoint / "harmful")
    harmful = (checkpoint / "harmful").read_bytes()
    (checkpoint / "harmful").unlink()
    path.write_bytes(harmful + path.read_bytes()[len(harmful) :])
    recorded(checkpoint)


def recipe_changed(checkpoint):
    path = checkpoint / "recipe.yaml"
    path.write_text(path.read_text().replace("ffn_hidden_size: 48", "ffn_hidden_size: 56"))
    recorded(checkpoint)


CHECKPOINTS = {
    "cut": (shard_cut, r"__0_0.distcp: has \d+ bytes, expected \d+: damaged"),
    "changed": (shard_changed, r"__0_0.distcp: is damaged: its digest is"),
    "missing": (lambda checkpoint: (checkpoint / "__0_0.distcp").unlink(), r"__0_0.distcp: is missing"),
    "table": (lambda checkpoint: (checkpoint / ".metadata").unlink(), r"\.metadata: is missing"),
    "code in the table": (table_with_code, r"\.metadata: cannot be read as a table of tensors"),
    "code in a shard": (shard_with_code, r"__0_0.distcp: language\.\S+ cannot be read"),
    "other shapes": (recipe_changed, r"mlp.linear_fc1.weight has shape .*, its recipe needs \[112, 32\] in each of 4 "),
    "kept files": (lambda checkpoint: cut(checkpoint / "huggingface" / "tensors.json"), r"tensors.json: has \d+ bytes"),
    "record": (lambda checkpoint: cut(checkpoint / INFORMATION_FILE), r"checkpoint.json: cannot be read"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_that_is_damaged(case, world: World, tmp_path, refused):
    damage, message = CHECKPOINTS[case]
    checkpoint = shutil.copytree(world.checkpoint("llama"), tmp_path / "checkpoint")
    damage(checkpoint)
    assert re.search(message, refused(checkpoint)), message
    assert not (checkpoint / "victim").exists()


def test_what_a_layout_cannot_hold_is_told(world: World, refused):
    for name, layout, reason in (
        ("llama", "original", "the model sees no images: the layout of the original LLaVA cannot hold it"),
        ("llava siglip", "original", "vision_model_type is siglip"),
        ("llama", "projector", "the model sees no images"),
        ("llama", "megatron", "is a checkpoint, which any layout of ranks can load, already"),
    ):
        assert reason in refused(world.checkpoint(name), f"--layout={layout}")
    assert "is in the layout transformers, already" in refused(world.source("llama"), "--layout=transformers")
    assert "--tokenizer=" in refused(world.source("llama"), "--tokenizer=x")
    assert "a projector alone has no logits" in refused(world.checkpoint("llava"), "--layout=projector", "--verify")
    assert "no run" in refused(world.folder / "nothing")


def test_a_target_that_exists_stays_as_it_is(world: World, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert refused(world.source("llama")).endswith("out: exists already; name a directory that does not")


@pytest.mark.parametrize("back", [False, True])
def test_a_disk_that_takes_no_more_leaves_nothing(back, world: World, tmp_path):
    """A limit on the size of files ends in the same place as a full disk."""
    source = world.checkpoint("llama") if back else world.source("llama")
    told = tmp_path / "told"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        sys.stderr = told.open("w")
        code = main(["convert", str(source), str(tmp_path / "out")])
        sys.stderr.flush()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert told.read_text() == f"error: {tmp_path / 'out'}: cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == [told]


@pytest.mark.parametrize("back", [False, True])
def test_what_a_killed_conversion_leaves_goes_with_the_next(back, world: World, tmp_path, monkeypatch):
    from neva_model.checkpoints.converting.convert import convert
    from neva_model.progress import ByteProgress

    source = world.checkpoint("llama") if back else world.source("llama")
    child = os.fork()
    if child == 0:
        # In the middle of the weights.
        monkeypatch.setattr(ByteProgress, "add", lambda self, count: os.kill(os.getpid(), signal.SIGKILL))
        convert(source, tmp_path / "out")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [f".out.unfinished-{child}"]
    convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def unreadable(monkeypatch, file):
    """Have a file refuse to be opened, as one of another user does; root may open any."""
    really = Path.open

    def refuse(path, *arguments, **options):
        if path == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)


@pytest.mark.parametrize("name", ["generation_config.json", "LICENSE", "*-00002-of-*.safetensors"])
def test_a_source_that_may_not_be_read_is_named(name, world: World, tmp_path, refused, monkeypatch):
    source = shutil.copytree(world.source("llama"), tmp_path / "source")
    (file,) = source.glob(name)
    unreadable(monkeypatch, file)
    assert refused(source) == f"error: {file}: cannot be read: Permission denied"


def test_a_source_that_may_not_be_listed_is_named(world: World, refused, monkeypatch):
    """A folder of which the files can be opened by their names alone."""
    source, really = world.source("llama"), Path.iterdir

    def refuse(path):
        if path == source:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert refused(source) == f"error: {source}: cannot be read: Permission denied"


@pytest.mark.parametrize("back", [False, True])
def test_a_disk_that_does_not_give_what_it_holds_is_named(back, world: World, tmp_path, refused):
    """Reading one's own memory at its begin fails as a broken disk does: the file opens, and the error names none."""
    there = world.checkpoint("llama") if back else world.source("llama")
    source = shutil.copytree(there, tmp_path / "source")
    file = (source / "huggingface" if back else source) / "LICENSE"
    file.unlink()
    file.symlink_to("/proc/self/mem")
    if back:
        recorded_but(source, "huggingface/LICENSE")
    assert refused(source) == f"error: {file}: cannot be read: Input/output error"


def recorded_but(checkpoint, name):
    """Have the record of a checkpoint say nothing of a file."""
    record = read_record(checkpoint)
    for known in ("files", "digests"):
        record[known].pop(name)
    (checkpoint / INFORMATION_FILE).write_text(record_text(record))
