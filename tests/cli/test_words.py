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
    (["llava"], "(did you mean llava.pretrain, llava.finetune, llava.lora, llava.qlora, llava.pipeline?)"),
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
    (
        ["llava.pipeline", "lora=true"],
        "lora: llava.pipeline has no parameter lora; the recipe llava.lora",
    ),
    (["llava.finetune", "lora=true"], "lora: no such field; the recipe llava.lora trains adapters"),
    (["llava.finetune", "model.lora.r=8"], "model.lora.r: no such field (did you mean model.language.lora.rank?)"),
    (
        ["llava.finetune", "--lora_r", "8"],
        " of nemo-run (did you mean model.language.lora.rank=8?)",
    ),
    (["llava.finetune", "--resume", "latest"], "--resume: no such flag of nemo-run (did you mean nemo-run resume la"),
    (["llava.finetune", "trainer.resume_from_checkpoint=true"], "(did you mean nemo-run resume RUN?)"),
    (
        ["llava.finetune", "trainer.ckpt_path=r/x"],
        "trainer.ckpt_path: no such field (did you mean nemo-run resume r/x?)",
    ),
    *(
        (
            [*words, f"{name}{between}runs/x-1/checkpoints/step-00000100"],
            " (did you mean nemo-run resume runs/x-1 --from ",
        )
        for words in (["llava.finetune"], ["llava.pipeline"])
        for name, between in (("--resume_from_checkpoint", "="), ("resume_from_checkpoint", "="), ("ckpt_path", "="))
    ),
    (
        ["llava.finetune", "--resume_from_checkpoint", "runs/a b/checkpoints/step-00000100/"],
        ": no such flag of nemo-run (did you mean nemo-run resume 'runs/a b' --from step-100?)\n",
    ),
    (["llava.finetune", "--resume=runs/x/checkpoints"], "(did you mean nemo-run resume runs/x?)"),
    (
        ["resume", "runs/x/checkpoints/step-100"],
        "runs/x/checkpoints/step-100: is no run (did you mean nemo-run resume runs/x --from step-100?)",
    ),
    (["llava.finetune", "--cutoff_len", "2048"], "(did you mean data.sequence_length=2048?)"),
    (["llava.finetune", "eval_dataset=x"], "eval_dataset: no such field (did you mean data.validation_data_path?)"),
    (["llava.finetune", "--eval_file=x.json"], "(did you mean data.validation_data_path=x.json?)"),
    (["llava.finetune", "val_dataset=x"], "val_dataset: no such field (did you mean data.validation_data_path?)"),
    (["llava.finetune", "--eval_steps=5"], "(did you mean trainer.val_check_interval=5?)"),
    (["llava.finetune", "media_dir=x"], "media_dir: no such field (did you mean data.image_folder?)"),
    (["llava.finetune", "--lr_scheduler_type", "cosine"], "(did you mean optim.lr_decay_style=cosine?)"),
    (["llava.finetune", "torch_dtype=bfloat16"], "torch_dtype: no such field (did you mean precision.precision?)"),
    (["llava.finetune", "--bf16", "true"], "--bf16: no such flag of nemo-run (did you mean precision.precision=bf16?)"),
    (["llava.finetune", "deepspeed=zero2.json"], "deepspeed: no such field; there is no DeepSpeed or FSDP: parallel."),
    (["llava.finetune", "--deepspeed", "zero2.json"], "--deepspeed: no such flag of nemo-run; there is no DeepSpeed"),
    (["llava.finetune", "do_train=true"], "do_train: no such field; every recipe trains: leave it out\n"),
    (["llava.finetune", "--do_train"], "--do_train: no such flag of nemo-run; every recipe trains: leave it out\n"),
    (
        ["llava.finetune", "gradient_accumulation_steps=4"],
        "no such field; data.global_batch_size counts the samples of",
    ),
    (["llava.finetune", "use_lora=true"], "use_lora: no such field; the recipe llava.lora trains adapters"),
    (
        ["llava.finetune", "--train_type", "lora"],
        "--train_type: no such flag of nemo-run; the recipe llava",
    ),
    (
        ["llava.finetune", "finetuning_type=lora"],
        "finetuning_type: no such field; the recipe llava.lora",
    ),
    (
        ["llava.finetune", "finetuning_type=full"],
        "finetuning_type: no such field; every part of the model trains unless",
    ),
    # The words of LLaVA's scripts, PEFT, LLaMA-Factory and bitsandbytes for adapters.
    (["llava.lora", "--lora_enable", "True"], "; the recipe llava.lora trains adapters, and model.language.lora.rank="),
    (["llava.lora", "peft=lora"], "peft: no such field; the recipe llava.lora trains adapters"),
    (["llava.lora", "--lora_alpha", "16"], "(did you mean model.language.lora.alpha=16?)"),
    (["llava.lora", "lora_rank=64"], "lora_rank: no such field (did you mean model.language.lora.rank?)"),
    (["llava.lora", "lora.rank=64"], "lora.rank: no such field (did you mean model.language.lora.rank?)"),
    (["llava.lora", "model.lora.rank=64"], "(did you mean model.language.lora.rank?)"),
    (["llava.lora", "model.language.lora.lora_alpha=64"], "(did you mean model.language.lora.alpha?)"),
    (["llava.lora", "model.vision.lora.r=64"], "(did you mean model.vision.lora.rank?)"),
    (["llava.lora", "model.language.lora.target_module=q_proj"], "(did you mean model.language.lora.target_modules"),
    (["llava.lora", "use_dora=true"], "use_dora: no such field (did you mean model.language.lora.kind=dora?)"),
    (["llava.lora", "--lora_target", "q_proj"], "(did you mean model.language.lora.target_modules=q_proj?)"),
    (["llava.lora", "--mm_projector_lr", "2e-5"], "(did you mean optim.lr_of.projector=2e-5?)"),
    (["llava.lora", "--bits", "4"], "--bits: no such flag of nemo-run; model.language.quantize=nf4 keeps fixed weigh"),
    (["llava.lora", "load_in_4bit=true"], "load_in_4bit: no such field; model.language.quantize=nf4 keeps fixed"),
    (["llava.finetune", "train_type=qlora"], "train_type: no such field; model.language.quantize=nf4 keeps fixed"),
    (["llava.finetune_lora"], "no such recipe or command (did you mean llava.lora?)"),
    (["finetune_qlora"], "no such recipe or command (did you mean llava.qlora?)"),
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
    makes = (llava.lora, neva.finetune, gpt.pretrain)
    fields = {field.path for make in makes for field in iterate_fields(make())} | {"optim.lr_of.projector"}
    assert set(FIELD_WORDS.values()) <= fields
    # Fields in the whole sentences of some messages above.
    assert {
        "parallel.use_distributed_optimizer",
        "parallel.tensor_model_parallel_size",
        "model.vision.freeze",
    } <= fields


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
