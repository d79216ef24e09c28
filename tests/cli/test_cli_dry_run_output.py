"""What a dry run sends where: the document to stdout, findings to stderr, and the exit code for scripts."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from neva_recipes.cli.main import main
from neva_recipes.config import recipe_from_yaml
from tests.cli.command import in_terminal

WRONG = ["llava.finetune", "size=tiny", "parallel.tensor_model_parallel_size=3", "model.vision=none", "--dry-run"]
CLOSING = "note: --dry-run wrote and started nothing"
REFUSED = "note: a launch from this machine would be refused: "


@pytest.mark.parametrize("form", ["text", "yaml", "json", "python", "html"])
def test_errors_are_lines_on_stderr_and_the_recipe_can_still_be_read(form, folder, capfd):
    assert main([*WRONG, "--format", form]) == 2
    out, err = capfd.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert any("parallel.tensor_model_parallel_size=3" in line for line in errors)
    assert any("vision and projector" in line for line in errors)
    *_, refused, closing = err.splitlines()
    assert refused.startswith(REFUSED) and closing == CLOSING
    assert err.splitlines()[-len(errors) - 2 : -2] == errors  # nearest to the prompt
    assert {line.partition(": ")[0] for line in err.splitlines()} <= {"error", "warning", "note"}
    if form == "text":
        assert "Command: none" in out and "  error: " in out
    if form == "html":
        assert f"<p>{refused.removeprefix('note: ')}</p>" in out
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
    assert "Command: none" in out
    *_, refused, closing = err.splitlines()
    codes = refused.removeprefix(REFUSED).split(", ")  # this machine may lack a GPU and room on its disk too
    assert codes[:2] == ["file-missing", "executor"] and set(codes[2:]) <= {"no-gpu", "disk-full"}
    assert closing == CLOSING
    assert main([*words, "--dry-run", "--format", "json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["refused_here"] == codes and err.splitlines()[-2] == refused
    assert main([*words, "--dry-run", "--script"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and "the local executor runs on one" in err and "error: --script: there is no script" in err
    assert main(words) == 2  # started it must not be


def test_memory_counts_on_the_gpu_that_was_named(folder, capfd):
    words = ["llava.finetune", "size=13b", "parallel.tensor_model_parallel_size=1", "parallel.sequence_parallel=false"]
    words += ["data.micro_batch_size=1", "--dry-run"]
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert re.search(r"^warning: .* GiB", err, re.MULTILINE) and "\nCommand of" in out
    assert main([*words, "--gpu", "a100-80g"]) == 2
    out, err = capfd.readouterr()
    assert re.search(r"^error: .* GiB.*a100-80g", err, re.MULTILINE) and "\nCommand: none" in out
    assert main([*words, "--gpu", "b200"]) == 0


COMMAND = f"{shlex.quote(sys.executable)} -m neva_recipes.cli.main gpt.pretrain size=tiny optim.lr=1e-4 --dry-run"


def test_findings_stand_once_and_at_the_end_where_a_terminal_shows_both_streams(folder):
    shown = in_terminal(f"{COMMAND} 'model.language.kv_channels=7'", NO_COLOR="1").replace("\r", "")
    *_, cost, findings = shown.removesuffix(f"{REFUSED}file-not-set\n{CLOSING}\n").split("\n\n")
    assert cost.startswith("Cost") or "\n\nCost" not in shown  # errors leave nothing to compute
    assert findings.startswith("Findings\n  note: file-not-set\n") and shown.count("data.data_path=none") == 1
    # Errors are the last of the findings.
    kinds = re.findall(r"^  (note|warning|error): ", findings, re.MULTILINE)
    assert set(kinds) == {"note", "error"} and kinds == sorted(kinds, key=["note", "warning", "error"].index)
    both = subprocess.run(f"{COMMAND} 2>&1", shell=True, capture_output=True, text=True, timeout=120)
    assert both.stdout.count("data.data_path=none") == 1
    apart = subprocess.run(f"{COMMAND} >shown.txt", shell=True, capture_output=True, text=True, timeout=120)
    assert "note: data.data_path=none" in apart.stderr and "data.data_path=none" in (folder / "shown.txt").read_text()


def test_the_script_is_for_no_other_format(folder, capfd):
    for words, said in (
        (["gpt.pretrain", "--script"], "error: --script: goes with --dry-run, which starts nothing: add --dry-run\n"),
        (["gpt.pretrain", "--dry-run", "--script", "--format", "json"], "error: --script, --format json: choose one"),
        (
            ["gpt.pretrain", "--sweep", "optim.lr=1,2", "--dry-run", "--script"],
            "error: --script: a sweep has none; each",
        ),
    ):
        assert main(words) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.startswith(said) and err.count("\n") == 1


TELL = f"{shlex.quote(sys.executable)} -c 'from neva_recipes.terminal import tell; import sys; tell(*sys.argv[1:])'"


@pytest.mark.parametrize(
    "message",
    [
        "optim.lrr: no such field (did you mean optim.lr?), and so on for a while: one of " + ", ".join(["field"] * 60),
        f"{'a' * 60}/{'b' * 60}: no such file",
        f"{'word ' * 14}nemo-run resume some-run-with-a-name optim.lr=1e-5,2e-5 --detach; then look at it again",
        f"{'word ' * 14}nemo-run {'resume ' * 30}",
    ],
)
def test_a_terminal_gets_long_lines_broken_between_words(message, folder):
    """What can be pasted stays in one piece, and a pipe gets one line."""
    words = shlex.join(["error", message])
    shown = in_terminal(f"{TELL} {words}").replace("\r", "").removesuffix("\n").split("\n")
    assert " ".join(" ".join(shown).split()) == f"error: {message}".strip()
    assert len(shown) > 1 and all(row.startswith("  ") for row in shown[1:])
    assert all(len(row) <= 80 or " " not in row.strip() or "nemo-run resume resume" in row for row in shown)
    if "optim.lr=1e-5,2e-5" in message:
        assert "nemo-run resume some-run-with-a-name optim.lr=1e-5,2e-5 --detach; then look at" in shown[1]
    piped = subprocess.run(f"{TELL} {words}", shell=True, capture_output=True, text=True, timeout=120)
    assert piped.stderr == f"error: {message}\n"


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
    for form in ("yaml", "json", "python", "html", "sh"):
        done = subprocess.run(
            ["sh", "-c", f"{COMMAND} {word} {'--script' if form == 'sh' else f'--format {form}'}"],
            capture_output=True,
            env={**environment, **variables},
            timeout=120,
        )
        text = done.stdout.decode("utf-8")
        assert {"json": "d\\u00e4t\\u00e4.json", "html": "d&#228;t&#228;.json"}.get(form, "dätä.json") in text
