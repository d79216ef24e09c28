"""What reaches a terminal: nothing that steers it, messages that can be read, and a line where output is lost."""

import contextlib
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from neva_recipes import gpt
from neva_recipes.cli.main import main
from neva_recipes.config import recipe_from_yaml, recipe_to_yaml
from neva_recipes.terminal import print_line, print_log, print_text, tell, visible
from tests.cli.command import NEMO_RUN

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202egpj\u2066 \x9b2J \u200f\u061c\x08\x7f"
SHOWN = "\\x1b[31mred\\x1b]0;title\\x07 \\u202egpj\\u2066 \\x9b2J \\u200f\\u061c\\x08\\x7f"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def steers(text):
    return [c for c in text if (unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n") or c in BIDI]


@given(st.text(st.characters(), max_size=40))
def test_nothing_that_steers_is_left_and_nothing_else_is_changed(text):
    shown = visible(text)
    assert not steers(shown)
    if not steers(text) and not any(unicodedata.category(c) in ("Cf", "Zl", "Zp", "Cn") for c in text):
        assert shown == text
    assert visible(shown) == shown
    assert text.encode("unicode_escape").decode() == shown.replace("\t", "\\t").replace("\n", "\\n") or (
        "\\" in text or not text.isascii()
    )


def test_colours_of_logs_stay_and_nothing_else_does():
    assert (
        visible("\x1b[1;32mok\x1b[0m \x1b[2K\x1b]0;x\x07", colours=True) == "\x1b[1;32mok\x1b[0m \\x1b[2K\\x1b]0;x\\x07"
    )


@pytest.mark.parametrize(
    "words",
    [
        [HOSTILE],
        ["status", HOSTILE],
        ["logs", HOSTILE],
        ["list", "--recipes", f"{HOSTILE}.py"],
        ["status", "--runs-dir", HOSTILE],
        ["gc", "--runs-dir", HOSTILE],
        ["llava.finetune", f"--{HOSTILE}"],
        ["llava.finetune", f"{HOSTILE}=1"],
        ["llava.finetune", f"optim.lr={HOSTILE}"],
        ["llava.finetune", f"data.data_path={BIDI}.json", "--dry-run"],
        ["llava.finetune", "--executor", HOSTILE],
        ["chat", HOSTILE],
        ["diff", "llava.finetune", HOSTILE],
        ["import-nemo", HOSTILE],
        ["templates", HOSTILE],
    ],
    ids=lambda words: ascii(words[0])[:12],
)
def test_hostile_words(words, folder, capfd):
    main(words)
    out, err = capfd.readouterr()
    assert not steers(out + err)
    assert "\\u202e" in out + err


def test_hostile_names_of_files(folder, capfd):
    home = folder / "runs" / "r\x1b[31m\u202e\nx"
    (home / "logs").mkdir(parents=True)
    (home / "state.json").write_text('{"state": "\\u001b[2J"}')
    (home / "job.json").write_text("{}")
    (folder / "runs" / ".new-\x1b[2J").mkdir()
    recipes = folder / "own\u202e\x1b[2J.py"
    recipes.write_text(
        "from neva_recipes import gpt\ndef mine():\n    r = gpt.pretrain('tiny')\n    r.name = 'x'\n    return r\n"
    )
    for words in (["status"], ["gc"], ["show", home.name], ["status", home.name], ["list", "--recipes", recipes.name]):
        main(words)
        out, err = capfd.readouterr()
        assert not steers(out + err), words
    assert main(["mine", "--recipes", recipes.name, "--dry-run"]) == 0
    out, err = capfd.readouterr()
    assert "own\\u202e\\x1b[2J.py:4" in out and not steers(err)


def test_documents_stay_what_they_are(folder, capfd):
    recipe = gpt.pretrain("tiny")
    recipe.logging.wandb_entity, recipe.data.tokenizer = "a\u202eb", f'{BIDI} "\\ {"long " * 40}'
    text = recipe_to_yaml(recipe)
    assert not steers(text) and yaml.safe_load(text)["logging"]["wandb_entity"] == "a\u202eb"
    assert recipe_from_yaml(text).data.tokenizer == recipe.data.tokenizer
    (folder / "saved.yaml").write_text(text, encoding="utf-8")
    for form in ("yaml", "json", "python"):
        assert main(["saved.yaml", "--dry-run", "--format", form]) == 0
        out, err = capfd.readouterr()
        assert not steers(out + err)
        if form == "json":
            assert json.loads(out)["recipe"]["data"]["tokenizer"] == recipe.data.tokenizer
        if form == "yaml":
            assert recipe_from_yaml(out).data.tokenizer == recipe.data.tokenizer
        if form == "python":
            compile(out, "recipe", "exec")


@pytest.mark.parametrize(
    "words", [["x" * 5000], ["llava.finetune", f"optim.lr={'9 ' * 2500}"], ["llava.finetune", f"data.{'y' * 5000}=1"]]
)
def test_long_values_are_shortened(words, folder, capfd):
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and len(err) < 2100
    assert " characters)..." in err


def test_a_path_is_never_cut(folder, capfd):
    path = "/".join(["directory-" * 20] * 6) + ".py"
    assert main(["list", "--recipes", path]) == 2
    assert capfd.readouterr().err == f"error: {path}: no such file\n"


def shell(line):
    command = f"'{NEMO_RUN}' {line}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", ["list", "executors", "llava.finetune --dry-run", "--help", "list --help"])
def test_output_that_cannot_be_written(command, folder):
    closed, full = shell(f"{command} >&-"), shell(f"{command} >/dev/full")
    assert closed.returncode == 2
    assert closed.stderr == "error: standard output is closed: send it to a file, or to /dev/null\n"
    assert full.returncode == 2
    assert full.stderr == "error: standard output cannot be written: No space left on device\n"


def test_streams_that_nobody_holds(folder):
    read_end, write_end = os.pipe()
    os.close(read_end)
    gone = subprocess.run([NEMO_RUN, "list"], stdout=write_end, stderr=subprocess.PIPE, timeout=120)
    os.close(write_end)
    assert (gone.returncode, gone.stderr) == (141, b"")
    assert shell("list <&-").returncode == 0
    for lost in ("2>&-", "2>/dev/full"):
        wrong = shell(f"lst {lost}")
        assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", "")
        document = shell(f"llava.finetune --dry-run --format json {lost}")
        assert document.returncode == 0 and json.loads(document.stdout)


def test_a_folder_whose_file_descriptors_are_all_closed(folder):
    """The files a command opens take no standard stream's place."""
    done = subprocess.run(
        ["bash", "-c", f"'{NEMO_RUN}' status --runs-dir . <&- 2>&- | cat"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "no runs in .\n" and os.listdir(folder) == []  # noqa: PTH208


def test_as_a_module(folder):
    done = subprocess.run([sys.executable, "-m", "neva_recipes", "list"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == shell("list").stdout


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True

    def fileno(self):
        return 1


@pytest.fixture
def on_terminal(monkeypatch):
    """A function that makes a call, with one terminal of 80 columns as both streams, and returns what is shown."""

    def call(function):
        stream = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            patch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((80, 24)))
            function()
        return stream.getvalue()

    return call


LONG = "/" + "/".join(["a-folder"] * 11)
SPACED = f"'/of many words{LONG}/with a name'\"'\"'s end.json'"


PRINTERS = {
    "tell": lambda line: tell("note", line),
    "print_log": print_log,
    "print_line": lambda line: print_line(line, sys.stderr),
}


@pytest.mark.parametrize("path", [LONG, SPACED, LONG[:60]])
@pytest.mark.parametrize("printer", PRINTERS)
def test_a_terminal_gets_a_path_whole(path, printer, on_terminal):
    line = f"the projector of this run was loaded from {path} (step 3), and nothing else"
    lines = on_terminal(lambda: PRINTERS[printer](line)).splitlines()
    assert lines[1].strip().startswith(path)  # it begins a line, where it fits if it fits anywhere
    assert " ".join(" ".join(lines).split()).endswith(f"was loaded from {path} (step 3), and nothing else")
    assert all(len(line) <= 80 or line.strip() == path for line in lines)


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("before", ["", "data.data_path=", "("])
def test_a_path_of_many_words_is_not_broken(printer, before, on_terminal, tmp_path):
    here = tmp_path / "a drive of mine" / "and a project of several words"
    here.mkdir(parents=True)
    (here / "my data: part 1.json").touch()
    for path in (f"{here}/my data: part 1.json", f"{here}/gone.json", f"{here.parent}/other"):
        line = f"the projector of this run was loaded from {before}{path}: it is there, and nothing else was"
        lines = on_terminal(lambda line=line: PRINTERS[printer](line)).splitlines()
        assert [line for line in lines if path in line] == lines[1:2]
        assert " ".join(" ".join(lines).split()) == (f"note: {line}" if printer == "tell" else line)


def test_words_after_a_path_are_none_of_it(on_terminal, tmp_path):
    (tmp_path / "a").touch()
    for path in (tmp_path / "a", "/of another machine/a"):
        line = f"{'x' * 60} {path} " + "word " * 30 + "and/or more"
        assert max(map(len, on_terminal(lambda line=line: tell("note", line)).splitlines())) <= 80


def test_what_is_said_of_a_command_is_not_a_part_of_it(on_terminal):
    command = "nemo-run resume stopped-20261130-092203"
    line = f"stopped-20261130-092203 cancelled: on request; {command} goes on from step 28 of the 31 that it trained"
    assert on_terminal(lambda: print_line(line, sys.stderr)).splitlines() == [
        "stopped-20261130-092203 cancelled: on request;",
        f"  {command} goes on from step 28 of the 31 that it",
        "  trained",
    ]


def test_words_of_a_job_are_not_broken(on_terminal):
    line = "training a (llava.pretrain): 8 steps of 64 samples out of 4,851, on 1 process (cpu) of this machine"
    lines = on_terminal(lambda: print_log(line)).splitlines()
    assert lines == [
        "training a (llava.pretrain): 8 steps of 64 samples out of 4,851, on 1 process",
        "  (cpu) of this machine",
    ]


REPORT = {
    "a value of several words": (
        "  warnings:  model.language.vocab_size=640: the tokenizer has 600 tokens, model.language.make_vocab_size_by=1",
        [
            "  warnings:  model.language.vocab_size=640: the tokenizer has 600 tokens,",
            "               model.language.make_vocab_size_by=1",
        ],
    ),
    "a path that fits below": (
        f"  checkpoint:         {LONG[:70]}",
        ["  checkpoint:", f"    {LONG[:70]}"],
    ),
    "the next value of a list": (
        f"             the first words {'w' * 50} end",
        [f"             the first words {'w' * 50}", "               end"],
    ),
    "what fits": ("run:   a", ["run:   a"]),
    "a table": ("POINT  STATE  STEP", ["POINT  STATE  STEP"]),
}


@pytest.mark.parametrize("case", REPORT)
def test_a_report_is_not_broken_within_words(case, on_terminal, monkeypatch):
    line, expected = REPORT[case]
    shown = on_terminal(lambda: print_text(f"{line}\nnext: line")).splitlines()
    assert shown[-1] == "next: line"
    assert shown[:-1] == expected


def test_a_terminal_gets_a_command_whole(on_terminal):
    command = "nemo-run resume RUN data.data_path=x.json optim.lr=1e-3"
    line = f"this run goes on only with fields that it knows: {command}; or start another one"
    lines = on_terminal(lambda: tell("error", line)).splitlines()
    assert [line for line in lines if command in line] == lines[1:2]


@pytest.mark.parametrize(
    "line",
    [
        f"  {LONG[:40]}  " + "column  " * 5,  # a path that ends before the edge
        "x  " * 40,
        "12.1k tok/s  " * 3 + "y  " * 20,
        f"\x1b[32m{'x ' * 30}{LONG}\x1b[0m",  # how wide it is cannot be told
    ],
)
def test_other_lines_of_a_job_stay_as_they_are(line, on_terminal):
    assert on_terminal(lambda: print_log(line)) == f"{line}\n"


@pytest.mark.parametrize("piece", ["a", "/", "a/", "'", "''/", "\\"])
def test_a_line_of_a_megabyte_comes_whole(piece, on_terminal):
    """One look at the rest of the line for each character of it would take hours."""
    word = piece * (2**20 // len(piece))
    for line in (f"{word} {LONG}", f" '{word}{LONG}"):
        shown = on_terminal(lambda line=line: print_log(line))
        assert "".join(shown.split()) == "".join(line.split())
        assert shown.endswith(f"\n  {LONG}\n") or LONG not in line.split()


@contextlib.contextmanager
def pseudo_terminal(columns):
    """Give the slave of a pseudo terminal, and a function that returns what it has been sent once it is closed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def sent():
        os.close(slave)
        parts = []
        with contextlib.suppress(OSError):  # what Linux says at the end
            while part := os.read(master, 4096):
                parts.append(part)
        return b"".join(parts).decode()

    try:
        yield slave, sent
    finally:
        os.close(master)


PROGRESS = """
from neva_recipes.terminal import guarded, print_progress
with guarded():
    print_progress("1 of 40 questions\u202e answered", is_last=False)
    print_progress("40 of 40 questions answered", is_last=True)
"""


@pytest.mark.parametrize(
    "columns, shown",
    [(80, ["1 of 40 questions\\u202e answered", "40 of 40 questions answered"]), (6, ["1 of ", "40 of"])],
)
def test_progress_is_one_line_of_a_terminal(columns, shown):
    with pseudo_terminal(columns) as (terminal, sent):
        subprocess.run([sys.executable, "-c", PROGRESS], stdout=terminal, stderr=terminal, check=True, timeout=60)
        assert sent() == f"\r{shown[0]}\x1b[K\r{shown[1]}\x1b[K\r\n"


def test_progress_is_lines_of_a_file():
    done = subprocess.run([sys.executable, "-c", PROGRESS], capture_output=True, check=True, timeout=60)
    assert done.stderr.decode() == "1 of 40 questions\\u202e answered\n40 of 40 questions answered\n"


def test_a_file_gets_lines_as_they_are(capsys):
    print_log(f"loaded from {LONG} {LONG}")
    print_line(f"loaded from {LONG} {LONG}", sys.stdout)
    assert capsys.readouterr().out == f"loaded from {LONG} {LONG}\n" * 2
