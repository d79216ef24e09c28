"""Mistakes in files: one line, exit code 2; what only the worker sees also in the run; nothing is written over."""

import json
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

import executors
from tests.end_to_end.world import PATIENCE, contents, nemo_run, start_nemo_run

pytestmark = pytest.mark.slow


def broken_picture(world):
    picture = world.images / "broken picture.png"
    Image.new("RGB", (64, 64), (9, 9, 9)).save(picture)
    picture.write_bytes(picture.read_bytes()[:70])
    bad = {**world.samples[2], "id": "bröken", "image": picture.name}
    data = world.write("broken picture.json", [bad] * 8)
    expected = ["broken picture.json: sample ", "(id 'bröken'): image file ", f"{picture} cannot be decoded"]
    return world.tiny(data__data_path=data, data__num_workers=2), expected


def truncated_file(world):
    data = world.folder / "truncated.json"
    begin = world.data.read_bytes()[:5000]
    data.write_bytes(begin[: begin.rindex(b"]") + 1])  # behind a conversation, where the end of the file looks whole
    return world.tiny(data__data_path=data.name), [
        f"{data}: after ",
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
    return words, ["was trained with another vocabulary than that of ", f"set data.tokenizer={world.tokenizer}"]


def test_one_line_for_each_mistake(world, finished, tmp_path):
    cases = {
        case.__name__: case(world, finished) if case.__code__.co_argcount == 2 else case(world)
        for case in (
            broken_picture,
            truncated_file,
            language_of_another_vocabulary,
        )
    }
    before = contents(finished)

    def launch(name):
        words = ["llava.finetune", *cases[name][0], "--name", name, "--runs-dir", tmp_path]
        return name, nemo_run(*words, cwd=world.folder, code=2)

    with ThreadPoolExecutor(2) as pool:
        results = dict(pool.map(launch, cases))
    for name, done in results.items():
        run = executors.find_run(name, tmp_path)
        prefix = f"error: run {run.name} failed: "
        assert done.stderr.startswith(prefix) and done.stderr.count("\n") == 1, done.stderr
        line = done.stderr.removeprefix(prefix).removesuffix("\n")
        for part in cases[name][1]:
            assert part in line, (name, line)
        status = run.status()
        assert (status.state, status.exit_code, status.reason) == ("failed", 2, line)
        assert json.loads((run.path / "failure.json").read_text())["message"] == line
        log = (run.path / "logs" / "joined.log").read_text(encoding="utf-8")
        assert log.count("error: ") == 1 and f"error: {line}\n" in log, log
        assert "Traceback" not in log
        assert not (run.path / "checkpoints").exists() or not list((run.path / "checkpoints").iterdir())
    assert contents(finished) == before


def test_what_is_seen_before_anything_starts(world, finished, tmp_path):
    for words, parts in (tokenizer_of_another_size(world), projector_of_another_shape(world, finished)):
        done = nemo_run("llava.finetune", *words, "--runs-dir", tmp_path / "runs", cwd=world.folder, code=2)
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert all(part in done.stderr for part in parts), done.stderr
        assert not (tmp_path / "runs").exists()


def test_resuming_with_another_vocabulary(world, finished, tmp_path):
    """The run is told apart from its checkpoints, which stay as they are; without the mistake it goes on."""
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    before = contents(run / "checkpoints")
    words = ["resume", run, f"data.tokenizer={world.other_tokenizer.name}", "trainer.max_steps=4"]
    refused = nemo_run(*words, cwd=world.folder, code=2)
    assert "was trained with another vocabulary than that of " in refused.stderr
    assert f"set data.tokenizer={world.tokenizer}\n" in refused.stderr and refused.stderr.count("\n") == 1
    assert contents(run / "checkpoints") == before
    nemo_run("resume", run, f"data.tokenizer={world.tokenizer}", cwd=world.folder)
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
    # The last step is in the curve, whatever the interval.
    assert run.status().step == 8
