"""A run started again from its saved recipe with further overrides, and secrets in the environment of real runs."""

import json
import os
import time
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.world import check_success, contents, nemo_run, start_nemo_run

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"
KEY = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "hunter2secret"
SECRETS = (TOKEN, KEY, PASSWORD)


@pytest.fixture
def secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("DATABASE", f"postgres://me:{PASSWORD}@example.org/db")


def assert_no_secret(*texts):
    for text in texts:
        for secret in SECRETS:
            assert secret not in text


def assert_no_secret_in_files(folder):
    for path, content in contents(folder).items():
        assert not any(secret.encode() in content for secret in SECRETS), path


def command_lines(run_directory):
    """Return the command lines of all processes that work in a run directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(run_directory) in line:
                found.append(line.decode(errors="replace"))
    return found


def test_again_with_further_overrides(finished, tmp_path, secrets):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    overrides = ["trainer.max_steps=2", "optim.lr=0.004"]
    with start_nemo_run(finished / "recipe.yaml", *overrides, "--name", "again", cwd=elsewhere) as process:
        # The processes of the run are looked at while it goes on.
        seen = set()
        while process.poll() is None:
            seen.update(command_lines(elsewhere / "runs"))
            time.sleep(0.1)
        out, err = process.communicate()
    (again,) = (elsewhere / "runs").iterdir()
    assert process.returncode == 0
    check_success(err, again, again.name, "runs")
    assert "step 2/2  loss " in out
    assert len(seen) >= 2 and any("neva_model.worker" in line for line in seen)
    assert_no_secret(out, err, *seen)

    # It used what the first run did, but for what was changed.
    old, new = (yaml.safe_load((run / "recipe.yaml").read_text()) for run in (finished, again))
    assert (new["trainer"]["max_steps"], new["optim"]["lr"]) == (2, 0.004)
    new["trainer"]["max_steps"], new["optim"]["lr"] = old["trainer"]["max_steps"], old["optim"]["lr"]
    assert new == old
    assert (again / "checkpoints" / "step-00000002").is_dir()

    said = nemo_run("diff", finished, again, cwd=elsewhere).stdout
    assert "2 fields differ" in said and "max_steps 3 -> 2\n" in said
    assert f"checkpoint: {again}/checkpoints/step-00000002\n" in nemo_run("show", "again", cwd=elsewhere).stdout
    for arguments in (["show", "again", "--format", "json"], ["status", "again"], ["logs", "again"]):
        assert_no_secret(nemo_run(*arguments, cwd=elsewhere).stdout)
    for form in ("text", "yaml", "json", "python", "html"):
        done = nemo_run(again / "recipe.yaml", "--dry-run", "--format", form, cwd=elsewhere)
        assert_no_secret(done.stdout, done.stderr)
    assert_no_secret_in_files(elsewhere)


def test_a_failure_that_names_a_secret(world, tmp_path, secrets):
    """What a library says of a wrong token or address comes back as the reason of the failure."""
    picture = (world.images / world.samples[0]["image"]).read_bytes()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cut.png").write_bytes(picture[: len(picture) // 2])
    samples = [{**world.samples[0], "id": f"{KEY} {TOKEN}", "image": "cut.png"}] * 8
    words = world.tiny(data__data_path=world.write("cut.json", samples), data__image_folder=tmp_path / "images")
    done = nemo_run("llava.finetune", *words, "--runs-dir", tmp_path / "runs", cwd=world.folder, code=2)
    (run,) = (tmp_path / "runs").iterdir()
    assert "*** ***" in done.stderr and "cut.png" in done.stderr
    assert json.loads((run / "failure.json").read_text())["kind"] == "user"
    said = nemo_run("show", run, cwd=world.folder).stdout
    assert "*** ***" in said
    assert_no_secret(done.stdout, done.stderr, said)
    assert_no_secret_in_files(run)
