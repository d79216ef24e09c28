"""What is wrong with a checkpoint is said by every command that uses one, and nothing is written."""

import json
import shutil

import pytest

from neva_recipes.cli.main import main
from neva_recipes.storage.checkpoints import record_text
from neva_recipes.storage.digests import digest_of
from tests.end_to_end.world import HOSTILE, contents

pytestmark = pytest.mark.slow


NO_OTHER = "the run has no whole checkpoint: nemo-run rerun "


def truncate_shard(checkpoint):
    shard = max(checkpoint.glob("*.distcp"), key=lambda path: path.stat().st_size)
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(size // 2)
    return f"{shard}: has {size // 2} bytes, expected {size}: damaged; {NO_OTHER}"


def remove_shard(checkpoint):
    shard = next(checkpoint.glob("*.distcp"))
    shard.unlink()
    return f"{shard}: is missing; {NO_OTHER}"


def scramble_shard(checkpoint):
    """Damage that the size of the file does not show."""
    for shard in checkpoint.glob("*.distcp"):
        shard.write_bytes(b"\0" * shard.stat().st_size)
    digests = json.loads((checkpoint / "checkpoint.json").read_text())["digests"]
    first = next(name for name in digests if name.endswith(".distcp"))
    return f"{checkpoint / first}: is damaged: its digest is crc32:"


def remove_metadata(checkpoint):
    (checkpoint / ".metadata").unlink()
    return f"{checkpoint}/.metadata: is missing; {NO_OTHER}"


def remove_information(checkpoint):
    (checkpoint / "checkpoint.json").unlink()
    return f"{checkpoint}: checkpoint.json is missing: not a complete checkpoint"


def break_information(checkpoint):
    (checkpoint / "checkpoint.json").write_text('{"step": ')
    return f"{checkpoint}/checkpoint.json: cannot be read: "


def remove_recipe(checkpoint):
    (checkpoint / "recipe.yaml").unlink()
    return f"{checkpoint}/recipe.yaml: is missing; {NO_OTHER}"


def change_recipe(checkpoint):
    recipe = checkpoint / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8").replace("conv_template: v1", "conv_template: v2")
    recipe.write_text(text, encoding="utf-8")
    information = checkpoint / "checkpoint.json"
    facts = json.loads(information.read_text())
    del facts["digest"]
    facts["files"]["recipe.yaml"] = recipe.stat().st_size
    facts["digests"]["recipe.yaml"] = digest_of(recipe)
    information.write_text(record_text(facts))
    return f"{recipe}: data.conv_template='v2': expected one of plain, v1, "


def no_checkpoint_yet(checkpoint):
    shutil.rmtree(checkpoint)
    return f"{checkpoint.parents[1]}: the run has no checkpoint yet"


DAMAGES = [
    truncate_shard,
    remove_shard,
    scramble_shard,
    remove_metadata,
    remove_information,
    break_information,
    remove_recipe,
    change_recipe,
    no_checkpoint_yet,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_by_chat_evaluate_and_export(damage, world, finished, tmp_path, capfd):
    run = tmp_path / f"copy {HOSTILE}"
    shutil.copytree(finished, run)
    for result in ("evaluation.json", "predictions.jsonl"):
        (run / result).unlink(missing_ok=True)
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    expected = damage(run / "checkpoints" / "step-00000003")
    before = contents(tmp_path)
    commands = [
        ["chat", str(run), "--prompt", "x"],
        ["evaluate", str(run), "--data", str(world.data)],
        ["export", str(run), str(tmp_path / "out")],
    ]
    for command in commands:
        assert main(command) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("error: ") and err.count("\n") == 1, err
        assert expected in err
    assert contents(tmp_path) == before


def test_export_is_quiet_whole_and_never_over_something(finished, tmp_path, capfd):
    target = tmp_path / f"exported {HOSTILE}"
    assert main(["export", str(finished), str(target)]) == 0
    out, err = capfd.readouterr()
    assert out == f"wrote {target} from {finished}/checkpoints/step-00000003\n"
    assert err == ""
    before = contents(tmp_path)
    assert {"config.json", "model.safetensors"} <= {name.rpartition("/")[2] for name in before}
    assert main(["export", str(finished), str(target)]) == 2
    assert capfd.readouterr().err == f"error: {target}: exists already; name a directory that does not\n"
    assert main(["export", str(finished), "/proc/none/out"]) == 2
    assert capfd.readouterr().err.startswith("error: /proc/none/out: cannot be written: ")
    assert contents(tmp_path) == before


def test_a_vocabulary_that_has_changed_since(world, finished, capfd):
    own = world.tokenizer.read_bytes()
    world.tokenizer.write_bytes(world.other_tokenizer.read_bytes())
    try:
        assert main(["chat", str(finished), "--prompt", "x"]) == 2
    finally:
        world.tokenizer.write_bytes(own)
    err = capfd.readouterr().err
    assert (
        err.endswith(f"than that of {world.tokenizer}: it has changed since: put back the one of the training\n")
        and err.count("\n") == 1
    )
