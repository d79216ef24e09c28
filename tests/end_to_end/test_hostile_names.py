"""Spaces, quotes, shell syntax and letters of other scripts, in every name there is, from training to an answer."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neva_recipes.config import load_recipe
from tests.end_to_end.finished_run import RUNS
from tests.end_to_end.world import HOSTILE, QUESTIONS, nemo_run

pytestmark = pytest.mark.slow


def test_training(world, finished):
    recipe = load_recipe(finished / "recipe.yaml")
    assert recipe.data.data_path == str(world.data)
    assert recipe.data.image_folder == str(world.images)
    assert recipe.data.tokenizer == str(world.tokenizer)
    with (finished / "metrics" / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    checkpoints = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert checkpoints == ["step-00000002", "step-00000003"]
    log = (finished / "logs" / "joined.log").read_text(encoding="utf-8")
    name = json.loads((finished / "job.json").read_text(encoding="utf-8"))["name"]
    assert f"training {name} (llava.finetune): 3 steps of 8 samples out of 25, on 1 process (cpu)\n" in log
    described = nemo_run("status", finished.name, "--runs-dir", RUNS, cwd=world.folder).stdout
    assert f"directory: {finished}\n" in described and "state:     succeeded\n" in described
    assert not list(world.folder.parent.rglob("canary"))


def test_asking_and_measuring_from_another_folder(world, finished, tmp_path):
    sample = world.samples[0]
    picture = world.images / sample["image"]
    questions = tmp_path / f"questions {HOSTILE}.json"
    questions.write_text(json.dumps(world.samples[:4]), encoding="utf-8")
    answers = tmp_path / f"answers {HOSTILE}.jsonl"
    chat = ["chat", finished, "--image", picture, "--prompt", QUESTIONS[0], "--max-new-tokens", "7"]
    evaluate = ["evaluate", finished, "--data", questions, "--image-folder", world.images, "--output", answers]
    with ThreadPoolExecutor(2) as pool:
        said, measured = pool.map(lambda words: nemo_run(*words, cwd=Path("/")), (chat, evaluate))
    assert said.stderr in ("", "(cut off after 7 tokens; --max-new-tokens allows more)\n")
    lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert [line["question"] for line in lines] == QUESTIONS * 4
    assert lines[0]["answer"].startswith(said.stdout.strip())
    report = json.loads((finished / "evaluation.json").read_text(encoding="utf-8"))
    assert report["questions"] == 12 and report["data"] == str(questions)
    what, *table, answers_line = measured.stdout.splitlines()
    assert what.startswith(f"evaluating {finished}/checkpoints/step-")
    assert max(map(len, table)) == 80 and answers_line == f"answers: {answers}"
    assert not list(world.folder.parent.rglob("canary")) and not list(tmp_path.rglob("canary"))
