"""A training on two indexed datasets, stopped half-way and gone on with, takes the samples of one that was not."""

import csv

import pytest

from neva_recipes.cli.main import main
from neva_recipes.run_directory.layout import metrics_file
from neva_recipes.token_data import make_token_data
from tests.tokenizers.texts import english_lines, made_lines

FIELDS = [
    *("gpt.pretrain", "size=tiny", "data.data_path=old/train.idx,new/train.idx", "data.blend=0.7,0.3"),
    *("data.validation_data_path=old/validation.idx", "data.sequence_length=32", "data.global_batch_size=4"),
    *("data.micro_batch_size=4", "data.num_workers=0", "trainer.max_steps=4", "optim.warmup_steps=0"),
    *("trainer.log_every_n_steps=1", "checkpoint.every_n_train_steps=2", "checkpoint.save_top_k=-1"),
    *("model.language.num_layers=1", "model.language.hidden_size=32", "model.language.ffn_hidden_size=64"),
]


def losses_of(run):
    with metrics_file(run).open() as file:
        return {row["step"]: row["reduced_train_loss"] for row in csv.DictReader(file)}


@pytest.mark.multiprocess
def test_a_resume_goes_on_at_the_next_sample(byte_level, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, lines in (("old", english_lines()[:300]), ("new", made_lines("latin", 300))):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
        make_token_data(
            [tmp_path / f"{name}.txt"], tmp_path / name, tokenizer=byte_level, json_keys=["text"], split=(9, 1, 0)
        )
    assert main([*FIELDS, f"data.tokenizer={byte_level}"]) == 0, capsys.readouterr().err
    (run,) = (tmp_path / "runs").iterdir()
    losses, before = losses_of(run), metrics_file(run).read_text()
    assert sorted(losses) == ["1", "2", "3", "4"]
    assert len(list((run / "data_cache").glob("*.indices"))) == 2
    assert main(["resume", run.name, "--from", "step-2", "trainer.log_every_n_steps=1"]) == 0, capsys.readouterr().err
    assert metrics_file(run).read_text() != before, "times differ where steps are trained again"
    assert losses_of(run) == losses
