"""A small world to run the real command in: pictures, conversations, tokenizers, and names that need quoting."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.sentencepiece_models import train_sentencepiece

NEMO_RUN = Path(sys.executable).with_name("nemo-run")
PATIENCE = 300.0

# Every character that a shell, YAML, JSON or a file name could be read wrongly at.
HOSTILE = 'it\'s a "dätä" $(touch canary) `touch canary` 日本 #; &*?[x]{y} \\ ~%'

COLORS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "black": (5, 5, 5)}
QUESTIONS = ["Which colour is this?", "What do you see?", "Is it red?"]


@dataclass(frozen=True)
class World:
    """Files with hostile names, made once.

    Attributes:
        folder: The folder of everything; commands run there.
        data: Conversations about pictures, and one without a picture.
        images: The pictures.
        tokenizer: A bare SentencePiece model.
        other_tokenizer: One of the same kind with another vocabulary.
    """

    folder: Path
    data: Path
    images: Path
    tokenizer: Path
    other_tokenizer: Path

    @property
    def samples(self) -> list[dict]:
        """The samples of the data file."""
        return json.loads(self.data.read_text(encoding="utf-8"))

    def tiny(self, **fields) -> list[str]:
        """Return the overrides of a run that takes seconds, with relative paths (`optim__lr` is `optim.lr`)."""
        settings = {
            "size": "tiny",
            "data.data_path": self.data.name,
            "data.image_folder": self.images.name,
            "data.tokenizer": self.tokenizer.name,
            "data.global_batch_size": 8,
            "data.micro_batch_size": 4,
            "data.num_workers": 0,
            "model.language.num_layers": 2,
            "model.vision.num_layers": 2,
            "trainer.max_steps": 3,
            "trainer.log_every_n_steps": 1,
        }
        settings |= {name.replace("__", "."): value for name, value in fields.items()}
        return [f"{name}={value}" for name, value in settings.items()]

    def write(self, name: str, samples: list[dict]) -> str:
        """Write a data file beside the others and return its name."""
        (self.folder / name).write_text(json.dumps(samples, ensure_ascii=False), encoding="utf-8")
        return name


def make_world(parent: Path) -> World:
    """Draw the pictures, write the conversations, and train the tokenizers."""
    folder = parent / f"folder {HOSTILE}"
    images = folder / f"images {HOSTILE}"
    images.mkdir(parents=True)
    samples = []
    for number in range(24):
        color = list(COLORS)[number % len(COLORS)]
        name = f"{number} {HOSTILE}.png"
        Image.new("RGB", (40 + number, 56), COLORS[color]).save(images / name)
        answers = [color, f"A {color} picture.", "yes" if color == "red" else "no"]
        turns = [
            {"from": sender, "value": text}
            for question, answer in zip(QUESTIONS, answers, strict=True)
            for sender, text in (("human", question), ("gpt", answer))
        ]
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
        samples.append({"id": f"picture-{number}", "image": name, "conversations": turns})
    samples.append({"id": "text", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi."}]})
    data = folder / f"chats {HOSTILE}.json"
    data.write_text(json.dumps(samples, ensure_ascii=False), encoding="utf-8")
    words = [turn["value"] for sample in samples for turn in sample["conversations"]]
    tokenizer, other = folder / f"tokens {HOSTILE}.model", folder / "other tokens.model"
    train_sentencepiece(tokenizer, words * 20, 320)
    train_sentencepiece(other, [word[::-1] for word in words] * 20, 320)
    return World(folder, data, images, tokenizer, other)


def check_success(stderr: str, run: Path, plot: str, runs_dir: str) -> None:
    """Check all that the command says at the end of a run that is to answer questions; it is ready for a shell.

    Args:
        stderr: What it has printed.
        run: Directory of the run.
        plot: What `plot` is to call the run.
        runs_dir: What the folder of the run is to be called.
    """
    said, title, *following = stderr.splitlines()
    assert said == f"{run.name} succeeded: {run}" and title == "next:"
    commands = [shlex.split(line) for line in following]
    steps = [["nemo-run", step] for step in ("chat", "evaluate", "export", "plot")]
    assert [words[:2] for words in commands] == [*steps, ["tensorboard", "--logdir"]]
    assert commands[3][2:] == [plot] and commands[4][2:] == [runs_dir]


def start_nemo_run(*arguments: object, cwd: Path, **options) -> subprocess.Popen:
    """Start the real command."""
    # One thread for each process: the machine is shared, and torch's threads spin while they wait.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "COLUMNS": "80"}
    environment["CUDA_VISIBLE_DEVICES"] = ""  # what is expected of these runs is said of processors
    return subprocess.Popen(
        [NEMO_RUN, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **options,
    )


def nemo_run(
    *arguments: object, cwd: Path, code: int = 0, patience: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run the real command and check its exit code."""
    with start_nemo_run(*arguments, cwd=cwd) as process:
        out, err = process.communicate(timeout=patience)
    assert process.returncode == code, f"exit code {process.returncode}, expected {code}\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
