"""What a dry run sends where: the document to stdout, findings to stderr, and the exit code for scripts."""

import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys

import pytest

from neva_recipes.cli.main import main
from neva_recipes.config import recipe_from_yaml

WRONG = ["llava.finetune", "size=tiny", "parallel.tensor_model_parallel_size=3", "model.vision=none", "--dry-run"]


@pytest.mark.parametrize("form", ["text", "yaml", "json", "python", "html"])
def test_errors_are_lines_on_stderr_and_the_recipe_can_still_be_read(form, folder, capfd):
    assert main([*WRONG, "--format", form]) == 2
    out, err = capfd.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert any("parallel.tensor_model_parallel_size=3" in line for line in errors)
    assert any("vision and projector" in line for line in errors)
    assert err.splitlines()[-len(errors) :] == errors  # nearest to the prompt
    assert {line.partition(": ")[0] for line in err.splitlines()} <= {"error", "warning", "note"}
    if form == "text":
        assert "Script: none" in out and "  error: " in out
    if form == "yaml":
        assert recipe_from_yaml(out).parallel.tensor_model_parallel_size == 3
    if form == "json":
        document = json.loads(out)
        assert document["script"] is None and document["plan"]["layout"] is None
        lines = [finding["line"] for finding in document["plan"]["findings"] if finding["severity"] == "error"]
        assert {f"error: {line}" for line in lines} >= set(errors)


def test_files_of_another_machine_and_another_executor_are_notes(folder, capfd):
    words = ["llava.finetune", "trainer.num_nodes=2", "data.tokenizer=/gone/tokenizer.model", "data.micro_batch_size=2"]
    assert main([*words, "--dry-run"]) == 0
    out, err = capfd.readouterr()
    assert "error" not in err
    for part in ("llava_v1_5_mix665k.json: no such file", "/gone/tokenizer.model", "the local executor runs on one"):
        assert [line for line in err.splitlines() if line.startswith("note: ") and part in line]
    assert "Script: none" in out
    assert main(words) == 2  # started it must not be


def test_memory_counts_on_the_gpu_that_was_named(folder, capfd):
    words = ["llava.finetune", "size=13b", "parallel.tensor_model_parallel_size=1", "parallel.sequence_parallel=false"]
    words += ["data.micro_batch_size=1", "--dry-run"]
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert re.search(r"^warning: .* GiB", err, re.MULTILINE) and "\nScript: writes" in out
    assert main([*words, "--gpu", "a100-80g"]) == 2
    out, err = capfd.readouterr()
    assert re.search(r"^error: .* GiB.*a100-80g", err, re.MULTILINE) and "\nScript: none" in out
    assert main([*words, "--gpu", "b200"]) == 0


def in_terminal(command, **variables):
    """Run a command in a terminal of 80 columns and return what it shows."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("sh", ["sh", "-c", command], {**os.environ, "TERM": "xterm", "COLUMNS": "80", **variables})
    shown = b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(terminal)
    os.waitpid(process, 0)
    return shown.decode()


COMMAND = f"{shlex.quote(sys.executable)} -m neva_recipes.cli.main gpt.pretrain size=tiny optim.lr=1e-4 --dry-run"


def test_colour_is_for_terminals(folder):
    assert "\x1b[33m*   lr: 0.0001" in in_terminal(COMMAND)
    for command, variables in (
        (COMMAND, {"NO_COLOR": "1"}),
        (COMMAND, {"TERM": "dumb"}),
        (f"{COMMAND} | cat", {}),
        (f"{COMMAND} --format yaml", {}),
    ):
        shown = in_terminal(command, **variables)
        assert "lr: 0.0001" in shown and "\x1b" not in shown


def test_a_reader_that_leaves_early_hears_no_complaint(folder):
    done = subprocess.run(["sh", "-c", f"{COMMAND} | head -n 1"], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("Recipe:") and done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C.UTF-8"}])
def test_whatever_the_encoding(folder, variables):
    """Of our own there is only ASCII; formats for programs are UTF-8 and stay whole."""
    environment = {key: value for key, value in os.environ.items() if key not in ("LC_ALL", "LANG", "PYTHONUTF8")}
    word = "data.data_path=dätä.json"
    done = subprocess.run(
        ["sh", "-c", f"{COMMAND} {word}"], capture_output=True, env={**environment, **variables}, timeout=120
    )
    assert done.returncode == 0
    text = done.stdout.decode("utf-8")
    assert set(re.sub(r"[ -~\n]", "", text)) <= set("äÜï")
    if variables.get("PYTHONIOENCODING") == "ascii":
        assert "note: the script has characters that are not shown here" in done.stderr.decode()
    for form in ("yaml", "json", "python", "html"):
        done = subprocess.run(
            ["sh", "-c", f"{COMMAND} {word} --format {form}"],
            capture_output=True,
            env={**environment, **variables},
            timeout=120,
        )
        text = done.stdout.decode("utf-8")
        assert {"json": "d\\u00e4t\\u00e4.json", "html": "d&#228;t&#228;.json"}.get(form, "dätä.json") in text
