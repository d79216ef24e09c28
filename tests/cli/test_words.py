"""Words that people bring along from elsewhere lead to the command, the recipe or the field that is meant."""

import pytest

from neva_recipes import gpt, llava, neva
from neva_recipes.cli.dispatch import COMMANDS
from neva_recipes.cli.main import main
from neva_recipes.cli.words import COMMAND_WORDS, FIELD_WORDS, meant_field
from neva_recipes.config import iterate_fields, node_types
from neva_recipes.registry import list_pipelines, list_recipes

MEANT = [
    (["trian"], "trian: no such recipe or command (did you mean llava.pretrain, llava.finetune, gpt.pretrain?)"),
    (["llava"], "(did you mean llava.pretrain, llava.finetune, llava.pipeline?)"),
    (["pretrain"], "(did you mean llava.pretrain, neva.pretrain, gpt.pretrain?)"),
    (["llava.pipelin"], "(did you mean llava.pipeline"),
    (["metrics", "s2"], "metrics: no such recipe or command (did you mean status, show"),
    (["stop", "s2"], "stop: no such recipe or command (did you mean cancel?)"),
    (["help", "stauts"], "stauts: no such recipe or command (did you mean status?)"),
    (
        ["llava.finetune", "--learning_rate", "1e-4"],
        "--learning_rate: no such flag of nemo-run (did you mean optim.lr=1e-4?)",
    ),
    (["llava.finetune", "--lr=1e-4"], "--lr: no such flag of nemo-run (did you mean optim.lr=1e-4?)"),
    (["llava.finetune", "--num-train-epochs", "data.num_workers=1"], "(did you mean trainer.max_epochs=VALUE?)"),
    (["llava.finetune", "--learning-rte", "1"], "(did you mean optim.lr=1?)"),
    (["resume", "s2", "--lr", "1e-4"], "--lr: no such flag of nemo-run resume (did you mean optim.lr=1e-4?)"),
    (["llava.finetune", "--size", "tiny"], "--size: no such flag of nemo-run (did you mean size=tiny?)"),
    (["--size=tiny", "llava.pipeline"], "--size: no such flag of nemo-run (did you mean size=tiny?)"),
    (["llava.finetune", "--sise", "tiny"], "--sise: no such flag of nemo-run (did you mean size=tiny?)"),
    (["fit", "llava.finetune", "--gpus", "8", "--size", "tiny"], "of nemo-run fit (did you mean size=tiny?)"),
    (["diff", "llava.finetune", "gpt.pretrain", "--size", "tiny"], "of nemo-run diff (did you mean size=tiny?)"),
    (["diff", "llava.finetune", "--lr=1"], "of nemo-run diff (did you mean optim.lr=1?)"),
    (["llava.pipeline", "--finetune.optim.lr", "1"], "an override has no dashes: finetune.optim.lr=1"),
    (["rerun", "s2", "--size", "tiny"], "--size: no such flag of nemo-run rerun (flags: "),
    (["llava.finetune", "--dryrun"], "--dryrun: no such flag of nemo-run (did you mean --dry-run?)"),
    (["llava.finetune", "learning_rate=1e-4"], "learning_rate: no such field (did you mean optim.lr?)"),
    (["llava.finetune", "output_dir=out"], "output_dir: no such field (did you mean --runs-dir"),
    (["llava.finetune", "exp_manager.exp_dir=out"], "did you mean --runs-dir"),
    (
        ["llava.finetune", "--output-dir", "out"],
        "no such flag of nemo-run (did you mean --runs-dir out?)",
    ),
    (["llava.finetune", "lr=1e-4"], "lr: no such field (did you mean optim.lr?)"),
    (["llava.finetune", "data.max_length=12"], "data.max_length: no such field (did you mean data.sequence_length?)"),
    (["llava.finetune", "optim.learning_rate=1"], "optim.learning_rate: no such field (did you mean optim.lr?)"),
    (["llava.pipeline", "finetune.data.max_length=3"], "data.max_length: no such field (did you mean data.sequence_le"),
    (["llava.pipeline", "lora=true"], "lora: llava.pipeline has no parameter lora; there are no adapters such as LoRA"),
    (["llava.finetune", "lora=true"], "lora: no such field; there are no adapters such as LoRA"),
    (["llava.finetune", "model.lora.r=8"], "model.lora.r: no such field; there are no adapters such as LoRA"),
    (["llava.finetune", "--lora_r", "8"], "--lora_r: no such flag of nemo-run; there are no adapters such as LoRA"),
    (["llava.finetune", "--resume", "latest"], "--resume: no such flag of nemo-run (did you mean nemo-run resume la"),
    (["llava.finetune", "trainer.resume_from_checkpoint=true"], "(did you mean nemo-run resume RUN?)"),
    (["llava.finetune", "size=7B"], "llava.finetune size='7B': expected one of 7b, 13b, tiny (did you mean 7b"),
    (["photos"], "nemo-run list shows all recipes, and --recipes FILE adds those of a Python file"),
    (["llava.finetune", "--config", "nosuch.yaml"], "error: nosuch.yaml: no such file\n"),
    (["nosuch.yaml"], "error: nosuch.yaml: no such file\n"),
]


@pytest.mark.parametrize(
    ("words", "message"), MEANT, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_what_is_meant_is_offered(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert message in err


def test_flags_without_fields_offer_none(capsys):
    assert main(["list", "--lr"]) == 2
    assert "optim.lr" not in capsys.readouterr().err


def test_every_word_leads_to_something():
    known = {entry.name for entry in (*list_recipes(), *list_pipelines())} | COMMANDS.keys()
    for word, names in COMMAND_WORDS.items():
        assert word not in known
        assert set(names) - {"plot"} <= known
    fields = {field.path for make in (llava.finetune, neva.finetune, gpt.pretrain) for field in iterate_fields(make())}
    assert set(FIELD_WORDS.values()) <= fields


@pytest.mark.parametrize("make", [llava.finetune, gpt.pretrain])
def test_the_name_of_a_field_means_a_field_of_that_name(make):
    for field in iterate_fields(make()):
        if "." in field.path and not node_types(field.annotation):
            name = field.path.rpartition(".")[2]
            assert meant_field(f"--{name.replace('_', '-')}").rpartition(".")[2] == name
    assert meant_field("--micro-batch-size") == "data.micro_batch_size"
    assert meant_field("zzzz") is None


SWEEPS = [
    (["optim.lr=1e-4,2e-4"], True),
    (["optim.lr=1e-4,fast"], False),
    (["size=7b,13b"], True),
    (["data.micro_batch_size=2,4", "optim.lr=1,2"], True),
    (["data.data_path=a.json,b.json", "optim.lr=fast"], False),
    (["trainer.accelerator=cpu,gpu"], True),
]


@pytest.mark.parametrize(("words", "offered"), SWEEPS)
def test_several_values_offer_a_sweep(words, offered, capsys):
    assert main(["llava.finetune", *words, "--dry-run"]) == 2
    assert ("; --sweep starts a run for each of these values" in capsys.readouterr().err) == offered


@pytest.mark.parametrize("words", [["cancel"], ["llava.finetune"], []])
def test_help_is_a_command(words, capsys):
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    for asked in (["help"], ["help", "help"]):
        assert main([*asked, *words]) == 0
        assert capsys.readouterr().out == shown
