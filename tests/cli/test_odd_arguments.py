"""Odd values for every option of every command: one line and exit code 2, or the value is taken; never a traceback."""

import pytest

from neva_recipes.cli import arguments
from neva_recipes.cli.dispatch import COMMANDS
from neva_recipes.cli.main import main

ODD = [
    "--",
    "",
    " ",
    "\0",
    "a\nb",
    "x" * 100_000,
    "..",
    "/",
    "\udcff",
    "\x1b[2J\u202e\x85",
    "010",
    "٣",
    "nan",
    "9" * 5000,
]
ODD += ["-1", "%s", "[", "/dev/null"]

# What a command needs before it looks at anything else.
NEEDED = {
    "fit": ["llava.finetune", "--gpus", "8"],
    "evaluate": ["nowhere", "--data", "x"],
    "export": ["nowhere", "out"],
    "diff": ["llava.finetune", "llava.pretrain"],
    "import-nemo": ["no.yaml"],
    "llava.finetune": ["--dry-run"],
    **{command: [] for command in ("list", "executors", "status", "gc", "templates")},
}


@pytest.fixture
def call(folder, capfd):
    """Return a function that runs a command and holds its answer against what every answer is like."""

    def run(*words):
        code = main(words)
        out, err = capfd.readouterr()
        lines = err.splitlines(keepends=True)
        told = [line for line in lines if line.startswith("error: ")]
        assert code in (0, 2), (words, code)
        assert code == 0 or told, words
        assert len(lines) == len(told) == 1 or code == 0 or "--dry-run" in words, (words, err)
        assert all(len(line) < 2500 for line in lines), words
        assert not set(out + err) & set("\x1b\u202e\x85\0\udcff"), words
        return code

    return run


def options_of(command, call, monkeypatch):
    found = []
    original = arguments.StrictParser.parse

    def parse(self, argv):
        found.append(self)
        return original(self, argv)

    with monkeypatch.context() as patch:
        patch.setattr(arguments.StrictParser, "parse", parse)
        call(command, "--help")
    return [action for action in found[0]._actions if action.nargs != 0]


@pytest.mark.parametrize("command", [*COMMANDS, "llava.finetune"])
def test_options(command, call, folder, monkeypatch):
    needed = NEEDED.get(command, ["nowhere"])
    for action in options_of(command, call, monkeypatch):
        for odd in ODD:
            if action.option_strings:
                call(command, *needed, f"{action.option_strings[-1]}={odd}")
            else:
                call(command, odd, *needed[1:])
    assert list(folder.iterdir()) == []


def test_dashes_are_no_value(call):
    for words in (["llava.finetune", "--name=--"], ["status", "--runs-dir=--"], ["llava.finetune", "--name", "--"]):
        assert call(*words) == 2


def test_chat_takes_one_image(folder, capsys):
    for images in (["--image", "a.png", "--image", "b.png"], ["--image=a.png", "--image=a.png"]):
        assert main(["chat", "nowhere", *images]) == 2
        assert capsys.readouterr().err == "error: --image is given twice: chat talks about one image\n"
    # The last place counts, as in most commands, and a value that looks like the flag is none.
    for words in (
        ["status", "--runs-dir=a", "--runs-dir", "b"],
        ["chat", "nowhere", "--prompt=--image=a", "--image=b"],
        ["chat", "--image=a", "--", "--image=b"],
    ):
        main(words)
        assert "is given twice" not in capsys.readouterr().err


FIELDS = ["name", "optim.lr", "trainer.max_steps", "data.data_path", "model.language.from_pretrained"]
FIELDS += ["model.recompute_modules", "model.recompute_modules+", "executor.env.A", "executor.x", "size"]


@pytest.mark.parametrize("field", FIELDS)
def test_fields(field, call, folder):
    for odd in ODD:
        call("llava.finetune", f"{field}={odd}", "--dry-run")
        call("llava.finetune", f"{field}{odd}=1", "--dry-run")
    assert list(folder.iterdir()) == []
