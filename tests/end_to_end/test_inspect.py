"""`nemo-run inspect` of a real run, against PyTorch's own reading of its checkpoint."""

import json
import math
import shlex
import shutil

import pytest
from torch.distributed.checkpoint import FileSystemReader

from neva_recipes.cli.main import main
from neva_recipes.config import build, load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


def inspected(capfd, *words):
    assert main(["inspect", *map(str, words), "--format", "json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_a_checkpoint(finished, capfd):
    newest = finished / "checkpoints" / "step-00000003"
    found = inspected(capfd, finished, "--tensors")
    assert found["path"] == str(newest) and found["kind"] == "checkpoint"
    assert (found["step"], found["consumed_samples"]) == (3, 24)
    table = FileSystemReader(newest).read_metadata().state_dict_metadata
    sizes = {name: list(entry.size) for name, entry in table.items() if hasattr(entry, "size")}
    assert {name: entry["shape"] for name, entry in found["tensors"].items()} == sizes
    # The weights by part, from the tensors; the rows that pad the vocabulary are no parameters.
    recipe = build(load_recipe(finished / "recipe.yaml"))
    width, words = recipe.model.language.hidden_size, recipe.model.language.vocab_size
    padding = found["vocabulary"]["rows"] - words
    for part in found["parts"]:
        if part["parameters"] is not None:
            values = sum(math.prod(size) for name, size in sizes.items() if name.startswith(f"{part['name']}."))
            assert part["parameters"] == values - (2 * padding * width if part["name"] == "language" else 0)
    assert {use["name"] for use in found["uses"] if use["problem"] is None} >= {
        "model.language.from_pretrained",
        "model.vision.from_pretrained",
        "model.projector.from_pretrained",
        "nemo-run resume",
        "nemo-run chat",
    }
    assert inspected(capfd, finished / "checkpoints" / "step-00000002")["step"] == 2


def test_the_fields_that_it_names_take_the_checkpoint(world, finished, capfd, monkeypatch):
    monkeypatch.chdir(world.folder)
    words = [use["words"] for use in inspected(capfd, finished)["uses"] if use["name"].endswith("from_pretrained")]
    assert len(words) == 3
    fields = [word for line in words for word in shlex.split(line)]
    assert main(["llava.finetune", *world.tiny(), *fields, "--dry-run"]) == 0


def test_the_screen_and_what_is_missing(finished, tmp_path, capfd):
    run = tmp_path / "a run"
    shutil.copytree(finished, run)
    assert main(["inspect", str(run)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1] == "  a checkpoint of llava.finetune: step 3, after 24 samples"
    assert "saved by" in "\n".join(lines)
    recipe = run / "checkpoints" / "step-00000003" / "recipe.yaml"
    assert main(["inspect", str(run / "checkpoints" / "step-00000009")]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    recipe.unlink()
    assert main(["inspect", str(run)]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and "recipe.yaml: is missing" in error
