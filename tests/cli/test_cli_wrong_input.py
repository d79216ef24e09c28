"""Wrong input: one line on stderr that names what is wrong and what to do, exit code 2, nothing written."""

import pytest

from neva_recipes.cli.main import main

# Arguments, and the parts of the answer: what is wrong, and the remedy.
WRONG = [
    # Names of recipes, commands and flags.
    (["lava.finetune"], ["lava.finetune: no such recipe or command", "did you mean llava.finetune"]),
    (["finetune"], ["finetune: no such recipe", "llava.finetune"]),
    (["stauts"], ["stauts: no such recipe or command", "did you mean status"]),
    (["xyzzy"], ["xyzzy: no such recipe or command", "nemo-run list"]),
    (["llava.finetune", "--dryrun"], ["--dryrun: no such flag", "did you mean --dry-run"]),
    (["llava.finetune", "--dry"], ["--dry: no such flag", "--dry-run"]),
    (["llava.finetune", "--exectuor", "local", "--dry-run"], ["--exectuor: no such flag", "--executor"]),
    (["llava.finetune", "--format", "json"], ["--format json", "add --dry-run"]),
    (["llava.finetune", "--gpu", "h100-8g"], ["--gpu h100-8g", "did you mean h100-80g"]),
    (["llava.finetune", "--dry-run", "--format", "xml"], ["--format", "'xml'", "'yaml', 'json', 'python', 'html'"]),
    (["llava.finetune", "--dry-run", "--gpu", "h100-80"], ["--gpu h100-80", "did you mean h100-80g"]),
    (["train", "--stage", "sft"], ["train: no such recipe or command"]),
    (["llava.finetune", "--yes"], ["--yes: no such flag", "flags: -h, --help, --dry-run"]),
    (["llava.finetune", "--optim.lr=1"], ["--optim.lr=1", "an override has no dashes: optim.lr=1"]),
    (["llava.finetune", "--name"], ["argument --name: expected one argument", "nemo-run --help"]),
    (["llava.finetune", "--executor", "slurmm"], ["executor slurmm: no such kind or profile", "did you mean slurm?"]),
    (["--nmae", "x"], ["--nmae: no such flag of nemo-run", "did you mean --name"]),
    (["list", "llava"], ["unexpected argument 'llava'", "nemo-run list --help"]),
    (["logs"], ["the following arguments are required: RUN", "nemo-run logs --help"]),
    (["logs", "x", "--rank", "one"], ["argument --rank: 'one': expected an integer", "nemo-run logs --help"]),
    (["logs", "x", "--folow"], ["--folow: no such flag of nemo-run logs", "did you mean --follow"]),
    (["status", "x", "y"], ["unexpected argument 'y'", "nemo-run status --help"]),
    (["resume"], ["nemo-run resume needs a RUN", "nemo-run status lists them"]),
    (["evaluate", "x"], ["the following arguments are required: --data", "nemo-run evaluate --help"]),
    (["chat", "x", "--temprature", "1"], ["--temprature: no such flag", "did you mean --temperature"]),
    (["chat", "nowhere"], ["no run 'nowhere' in runs"]),
    (["status", "nowhere"], ["no run 'nowhere' in runs"]),
    (["status", "n" * 300], ["no run 'nnn"]),
    (["chat", "n" * 300], ["no run 'nnn"]),
    (["list", "--recipes", f"{'n' * 300}.py"], ["nnn.py: no such file"]),
    (["cancel", "nowhere", "--runs-dir", "elsewhere"], ["no run 'nowhere' in elsewhere"]),
    # Overrides.
    (["llava.finetune", "optim.lr"], ["optim.lr: expected key=value", "optim.lr=1e-4"]),
    (["llava.finetune", "=3"], ["=3: expected key=value"]),
    (["llava.finetune", "size=14b"], ["llava.finetune size='14b'", "expected one of 7b, 13b, tiny"]),
    (["neva.pretrain", "size=tiny"], ["neva.pretrain size='tiny'", "expected one of 7b, 13b"]),
    (["llava.finetune", "siz=13b"], ["siz: llava.finetune has no such parameter", "did you mean size"]),
    (["llava.finetune", "lr=1e-4"], ["lr: no such field", "did you mean optim.lr"]),
    (["llava.finetune", "optim.lrr=1"], ["optim.lrr: no such field", "did you mean optim.lr"]),
    (["llava.finetune", "optim.speed=1"], ["optim.speed: no such field", "did you mean trainer.seed"]),
    (["llava.finetune", "optim.zzz=1"], ["optim.zzz: no such field", "expected one of lr, min_lr"]),
    (
        ["llava.finetune", "model.vision.num_layer=1"],
        ["did you mean model.vision.num_layers, model.language.num_layers"],
    ),
    (["llava.finetune", "trainr.max_steps=1"], ["trainr.max_steps: no such field", "did you mean trainer.max_steps"]),
    (["llava.finetune", "optim.lr.x=1"], ["optim.lr.x: optim.lr is a field, not a group of fields"]),
    (["llava.finetune", "model.vision=none"], ["vision and projector go together", "set both, or neither"]),
    (["llava.finetune", "optim=fast"], ["optim=fast: is a group of fields", "optim.lr"]),
    (["gpt.pretrain", "model.vision.freeze=true"], ["model.vision is none in this recipe"]),
    (["llava.finetune", "--partition", "gpu"], ["(did you mean executor.partition=gpu --executor slurm?)"]),
    (["llava.finetune", "--executor=slurm", "--partition=gpu"], ["(did you mean executor.partition=gpu?)"]),
    (["llava.finetune", "executor.partition=gpu"], ["executor.partition: no such field", "add --executor slurm"]),
    (["llava.finetune", "optim.lr=fast"], ["optim.lr='fast'", "expected a number > 0"]),
    (["llava.finetune", "optim.lr=nan"], ["optim.lr='nan'", "expected a number > 0"]),
    (["llava.finetune", "data.micro_batch_size=0"], ["data.micro_batch_size='0'", "expected an integer >= 1"]),
    (["llava.finetune", "model.vision.freeze=1"], ["model.vision.freeze='1'", "expected true or false"]),
    (["llava.finetune", "data.conv_template=vicuna"], ["data.conv_template='vicuna'", "expected one of plain, v1"]),
    (["llava.finetune", "data.image_aspect_ratio=pda"], ["data.image_aspect_ratio='pda'", "did you mean pad"]),
    (["llava.finetune", "trainer.seed=none"], ["trainer.seed='none'", "expected an integer >= 0"]),
    (["llava.finetune", "data.data_path=a\nb"], ["data.data_path='a\\nb'", "a line break", "remove it"]),
    (["llava.finetune", "name=\udcff"], ["name='\\udcff'", "not UTF-8", "remove it"]),
    (["llava.finetune", "trainer.max_epochs=1"], ["max_steps and max_epochs must be set, the other none"]),
    (["llava.finetune", "data.global_batch_size=100"], ["data.global_batch_size=100", "not a multiple of"]),
    (["llava.finetune", "parallel.tensor_model_parallel_size=3"], ["num_attention_heads=32", "not a multiple of"]),
    (["llava.finetune", "model.language.freeze=true", "model.projector.freeze=true"], ["model.projector.freeze=false"]),
    (["llava.finetune", "data.sequence_length=8192"], ["data.sequence_length=8192", "max_position_embeddings=4096"]),
    # What a run needs.
    (["gpt.pretrain", "size=tiny"], ["data.data_path=none: names no file", "add data.data_path=FILE"]),
    (["llava.finetune", "size=tiny", "data.data_path=no.json"], ["data.data_path=no.json: no such file", "set it"]),
    (["llava.finetune", "--name", "a/b", "--dry-run"], ["name='a/b'", "cannot hold '/'"]),
    (["llava.finetune", "--name", "latest", "--dry-run"], ["name='latest'", "the newest run"]),
    (["llava.finetune", "trainer.num_nodes=2"], ["trainer.num_nodes=2", "set trainer.num_nodes=1"]),
    # Files.
    (["mine.yaml"], ["mine.yaml: no such file"]),
    (["digits", "--recipes", "no.py"], ["no.py: no such file"]),
    (["digits", "--recipes", "no.txt"], ["no.txt: expected a Python file whose name ends in .py"]),
]


@pytest.mark.parametrize(("arguments", "parts"), WRONG, ids=[ascii(" ".join(arguments)) for arguments, _ in WRONG])
def test_wrong_input(arguments, parts, folder, capfd):
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    for part in parts:
        assert part in err
    assert list(folder.iterdir()) == []


def test_the_process_exits_with_2(nemo_run, folder):
    done = nemo_run("llava.finetune", "optim.lr=fast", check=2)
    assert done.stdout == ""
    assert done.stderr == "error: optim.lr='fast': expected a number > 0\n"
    assert list(folder.iterdir()) == []


def test_bytes_that_are_no_text(nemo_run):
    done = nemo_run(
        b"llava.finetune".decode(), "data.data_path=\udcff", env={"PYTHONUTF8": "0", "LC_ALL": "C"}, check=2
    )
    assert "data.data_path=" in done.stderr and done.stderr.count("\n") == 1


def test_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["status"]) == 2
    assert capsys.readouterr().err == "error: the current folder is not there any more: cd to another one\n"
