"""What a shell offers: asked in a real bash, and as argcomplete's protocol asks it."""

import os
import shutil
import subprocess

import pytest

from neva_recipes.cli.arguments import StrictParser
from neva_recipes.cli.completion import parser_of
from neva_recipes.cli.dispatch import COMMANDS
from tests.cli.command import NEMO_RUN


def offered(line, folder, behind=""):
    """Return what is offered for the word at the end of a line, or before `behind`."""
    environment = {
        **os.environ,
        "COMP_LINE": line + behind,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "offered"),
        "IFS": "\n",
    }
    done = subprocess.run([NEMO_RUN], cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
    return [word.strip() for word in (folder / "offered").read_text().split("\n")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nemo-run llava.f", ["llava.finetune"]),
        ("nemo-run exe", ["executors"]),
        ("nemo-run llava.finetune model.projector.mm", ["model.projector.mm_projector_type="]),
        ("nemo-run llava.finetune model.vision.hidden_act=q", ["quick_gelu"]),
        ("nemo-run llava.finetune size=1", ["13b"]),
        ("nemo-run gpt.pretrain model.language.freeze=", ["false", "true"]),
        ("nemo-run llava.finetune --dry", ["--dry-run"]),
        ("nemo-run llava.finetune --dry-run optim.weight", ["optim.weight_decay="]),
        ("nemo-run llava.finetune --gpu h200-141g size=1", ["13b"]),
        ("nemo-run llava.finetune --name 'a b' --detach optim.weight", ["optim.weight_decay="]),
        ("nemo-run fit --gpus 8 gpt.pretrain --gpu h2", ["h200-141g"]),
        ("nemo-run llava.finetune --executor s", ["slurm"]),
        ("nemo-run data pre", ["preview"]),
        ("nemo-run data check a.json --temp", ["--template"]),
        ("nemo-run data preview --template mis", ["mistral_instruct"]),
        ("nemo-run templates --format json xtuner_m", ["xtuner_mistral"]),
        ("nemo-run llava.finetune --gpu h2", ["h200-141g"]),
        ("nemo-run fit gpt", ["gpt.continue_pretrain", "gpt.localize", "gpt.pretrain"]),
        ("nemo-run status --format j", ["json"]),
        ("nemo-run completion z", ["zsh"]),
        ("nemo-run llava.pipeline size=1", ["13b"]),
        ("nemo-run nonsense.pretrain optim.weight", ["optim.weight_decay="]),
        ("nemo-run show x", [""]),
        ("nemo-run tokenizer add", ["add-tokens"]),
        ("nemo-run tokenizer add-tokens old.model new.model --con", ["--control"]),
        ("nemo-run chat picture --im", ["--image"]),
    ],
)
def test_words(line, expected, folder):
    assert sorted(offered(line, folder)) == expected


def test_runs_and_what_a_file_defines(folder):
    for name in ("first", "second"):
        run = folder / "runs" / f"{name}-20260101-000000"
        run.mkdir(parents=True)
        (run / "job.json").write_text(f'{{"name": "{name}", "created": "2026-01-01T00:00:00+00:00"}}')
    assert offered("nemo-run show ", folder) == ["first", "second", "latest"]
    assert offered("nemo-run diff fi", folder) == ["first"]
    assert offered("nemo-run diff first sec", folder) == ["second"]
    assert offered("nemo-run llava.finetune model.projector.from_pretrained=fi", folder) == ["first"]
    (folder / "own.py").write_text(
        "import executors\nfrom neva_recipes import gpt\n\n"
        "def mine(depth: int = 2):\n    return gpt.pretrain('tiny')\n\n"
        "def corner() -> executors.LocalExecutor:\n    return executors.LocalExecutor()\n"
    )
    assert offered("nemo-run --recipes own.py own.mine dep", folder) == ["depth="]
    assert offered("nemo-run --recipes own.py llava.finetune --executor cor", folder) == ["corner"]
    assert offered("nemo-run --recipes own.py own.", folder) == ["own.mine"]
    # The short name is enough, and the file may come first, last, or behind the cursor.
    assert offered("nemo-run --recipes own.py mi", folder) == ["mine"]
    assert offered("nemo-run mi", folder, " --recipes own.py") == ["mine"]
    assert offered("nemo-run fit --recipes own.py mi", folder) == ["mine"]
    for line, behind in (
        ("nemo-run --recipes own.py mine dep", ""),
        ("nemo-run mine --recipes own.py dep", ""),
        ("nemo-run mine --recipes=own.py optim.lr=1 dep", ""),
        ("nemo-run mine dep", " --recipes own.py"),
        ("nemo-run own.mine dep", " optim.lr=1 --dry-run --recipes own.py"),
        ("nemo-run diff mine dep", " --recipes own.py"),
    ):
        assert offered(line, folder, behind) == ["depth="], line
    (folder / "other.py").write_text((folder / "own.py").read_text())
    assert offered("nemo-run --recipes own.py --recipes other.py mi", folder) == [""]  # it would be refused
    (folder / "own.py").write_text("def (\n")
    assert offered("nemo-run --recipes own.py own.", folder) == [""]


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_every_command_says_what_it_parses(name):
    assert isinstance(parser_of(name), StrictParser)


def test_in_a_real_bash(folder):
    script = (
        'eval "$(nemo-run completion bash)"\n'
        'COMP_LINE="nemo-run llava.finetune optim.min" COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_CWORD=2\n'
        "COMP_WORDS=(nemo-run llava.finetune optim.min)\n"
        '_python_argcomplete nemo-run optim.min llava.finetune && printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "PATH": f"{NEMO_RUN.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "optim.min_lr="


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_is_the_shells_own(shell, nemo_run):
    text = nemo_run("completion", shell, check=0).stdout
    assert "nemo-run" in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed, so its syntax is not checked")
    subprocess.run([shell, "-n"], input=text, text=True, check=True)
