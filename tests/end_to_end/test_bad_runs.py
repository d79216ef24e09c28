"""Mistakes in files: one line, exit code 2; what only the worker sees also in the run; nothing is written over."""

import json
import shlex
import shutil

import pytest
from PIL import Image

import executors
from tests.end_to_end.world import PATIENCE, contents, nemo_run, start_nemo_run

pytestmark = pytest.mark.slow


def broken_picture(world):
    picture = world.images / "broken picture.png"
    Image.new("RGB", (64, 64), (9, 9, 9)).save(picture)
    picture.write_bytes(picture.read_bytes()[:70])
    question, *_ = world.samples[2]["conversations"]
    turns = [question, {"from": "gpt", "value": "It is number 1."}]
    samples = [{"id": "bröken", "image": picture.name, "conversations": turns}, *world.samples[:7]]
    data = world.write("broken picture.json", samples)
    expected = ["broken picture.json: sample 0 (id 'bröken'): image file ", f"{picture} cannot be decoded"]
    return world.tiny(data__data_path=data, data__num_workers=2), expected


def truncated_file(world):
    data = world.folder / "truncated.json"
    begin = world.data.read_bytes()[:5000]
    data.write_bytes(begin[: begin.rindex(b"]") + 1])  # behind a conversation, where the end of the file looks whole
    return world.tiny(data__data_path=data.name), [
        f"error: data.data_path={data.name}: after ",
        "the file ends inside of a sample: it is truncated",
    ]


def tokenizer_of_another_size(world):
    words = world.tiny(model__language__vocab_size=300)
    return words, ["model.language.vocab_size=300: the tokenizer has ", "; set model.language.vocab_size="]


def projector_of_another_shape(world, finished):
    words = world.tiny(model__projector__from_pretrained=finished, model__projector__mm_projector_type="linear")
    return words, [shlex.quote(str(finished)), "was trained with mm_projector_type=mlp2x_gelu"]


def language_of_another_vocabulary(world, finished):
    words = world.tiny(model__language__from_pretrained=finished, data__tokenizer=world.other_tokenizer.name)
    return words, [
        "was trained with another vocabulary than that of ",
        f"set data.tokenizer={shlex.quote(str(world.tokenizer))}",
    ]


def test_one_line_for_what_only_the_worker_meets(world, tmp_path):
    words, parts = broken_picture(world)
    done = nemo_run("llava.finetune", *words, "--name", "bad", "--runs-dir", tmp_path, cwd=world.folder, code=2)
    run = executors.find_run("bad", tmp_path)
    prefix = f"error: run {run.name} failed: "
    assert done.stderr.startswith(prefix) and done.stderr.count("\n") == 1, done.stderr
    line = done.stderr.removeprefix(prefix).removesuffix("\n")
    assert all(part in line for part in parts), line
    status = run.status()
    assert (status.state, status.exit_code, status.reason) == ("failed", 2, line)
    assert json.loads((run.path / "failure.json").read_text())["message"] == line
    log = (run.path / "logs" / "joined.log").read_text(encoding="utf-8")
    assert log.count("error: ") == 1 and f"error: {line}\n" in log, log
    assert "Traceback" not in log
    assert not (run.path / "checkpoints").exists() or not list((run.path / "checkpoints").iterdir())


def test_what_is_seen_before_anything_starts(world, finished, tmp_path):
    before = contents(finished)
    for words, parts in (
        truncated_file(world),
        tokenizer_of_another_size(world),
        projector_of_another_shape(world, finished),
        language_of_another_vocabulary(world, finished),
    ):
        done = nemo_run("llava.finetune", *words, "--runs-dir", tmp_path / "runs", cwd=world.folder, code=2)
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert all(part in done.stderr for part in parts), done.stderr
        assert not (tmp_path / "runs").exists()
    assert contents(finished) == before


def test_resuming_with_another_vocabulary(world, finished, tmp_path):
    """The run is told apart from its checkpoints, which stay as they are; without the mistake it goes on."""
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    before = contents(run / "checkpoints")
    words = ["resume", run, f"data.tokenizer={world.other_tokenizer.name}", "trainer.max_steps=4"]
    refused = nemo_run(*words, cwd=world.folder, code=2)
    assert "was trained with another vocabulary than that of " in refused.stderr
    assert f"set data.tokenizer={shlex.quote(str(world.tokenizer))}\n" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert contents(run / "checkpoints") == before
    nemo_run("resume", run, f"data.tokenizer={world.tokenizer}", "trainer.max_steps=4", cwd=world.folder)
    assert (run / "checkpoints" / "step-00000004").is_dir()


def test_bad_samples_are_skipped(world, tmp_path):
    samples = [*world.samples[:6], {**world.samples[6], "image": "absent.png"}, {"id": "empty", "conversations": []}]
    roles = {"id": "roles", "conversations": world.samples[-1]["conversations"][::-1]}
    marks = {**world.samples[8], "id": "marks"}
    marks["conversations"][0]["value"] = "no mark"
    data = world.write("half bad.json", [*samples, world.samples[-1], roles, marks])
    words = world.tiny(data__data_path=data, data__on_bad_sample="skip", data__num_workers=2, trainer__max_steps=8)
    words.append("trainer.log_every_n_steps=5")
    with start_nemo_run(
        "llava.finetune", *words, "--name", "skips", "--runs-dir", tmp_path, cwd=world.folder
    ) as command:
        out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, err
    run = executors.find_run("skips", tmp_path)
    entries = [json.loads(line) for line in (run.path / "bad_samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted((entry["sample"], entry["id"]) for entry in entries) == [
        (6, "picture-6"),
        (7, "empty"),
        (9, "roles"),
        (10, "marks"),
    ]
    assert all(entry["file"] == str(world.folder / data) for entry in entries)
    lines = out.splitlines()
    (first,) = [line for line in lines if line.startswith("skipped ")]
    assert "every such sample is named in bad_samples.jsonl" in first
    assert lines[-1].startswith("bad samples were skipped ") and "step 8/8  loss " in out
    assert ": 8 steps of 8 samples out of 7, on 1 process" in out
    # The last step is in the curve, whatever the interval.
    assert run.status().step == 8
