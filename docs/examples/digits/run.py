"""Run the main job at a size a laptop does in minutes.

    python docs/examples/digits/run.py demo
    python docs/examples/digits/run.py demo-on-slurm --executor slurm trainer.num_nodes=2 trainer.devices=2

Every step is the `nemo-run` command a user types; the script prints each before it runs it. Words after the folder go
to each of the three trainings.
"""

import csv
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

try:
    import matplotlib
    import prepare

    from executors import list_runs

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ModuleNotFoundError as error:
    sys.exit(f"error: no package {error.name} here: make demo installs what the example needs")

NEMO_RUN = str(Path(sys.executable).with_name("nemo-run"))
REQUIRED_ACCURACY = 0.93
"""The job has reached 95.2 to 97.6 %; docs/accuracy.md says what that depends on."""


def nemo_run(*arguments: str) -> None:
    """Print a `nemo-run` command, run it, and stop the demo if it fails."""
    print(f"\n$ nemo-run {shlex.join(arguments)}", flush=True)
    completed = subprocess.run([NEMO_RUN, *arguments], check=False)
    if completed.returncode:
        sys.exit(completed.returncode)


def train(recipe: str, runs: Path, words: Sequence[str], **fields: object) -> Path:
    """Run a tiny recipe with the given fields (`data__data_path` is `data.data_path`) and return its run directory."""
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in fields.items()]
    nemo_run(recipe, "size=tiny", "--runs-dir", str(runs), *overrides, *words)
    return list_runs(runs)[-1].path


def plot_losses(runs: Mapping[str, Path], target: Path) -> None:
    """Draw the training loss of each stage."""
    figure, axes = plt.subplots(1, len(runs), figsize=(4 * len(runs), 3), layout="constrained")
    for axis, (title, run) in zip(axes, runs.items(), strict=True):
        with (run / "metrics" / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["reduced_train_loss"]]
        axis.plot([int(row["step"]) for row in rows], [float(row["reduced_train_loss"]) for row in rows])
        axis.set(title=title, xlabel="step", ylabel="loss per token", yscale="log")
        axis.grid(alpha=0.3)
    figure.savefig(target, dpi=120)


def main(directory: Path, words: Sequence[str]) -> None:
    """Run every stage under `directory`, trainings with further `words`, and check the held-out accuracy."""
    started = time.monotonic()
    data, runs = directory / "data", directory / "runs"
    prepare.main(data)
    images = {"data__image_folder": data / "images"}

    text = train(
        "gpt.pretrain",
        runs,
        words,
        data__data_path=data / "text.txt",
        data__tokenizer=data / "tokenizer",
        data__sequence_length=128,
        data__global_batch_size=16,
        data__micro_batch_size=16,
        trainer__max_steps=150,
    )
    pretrain = train(
        "llava.pretrain",
        runs,
        words,
        data__data_path=data / "pretrain.json",
        model__language__from_pretrained="gpt.pretrain",
        trainer__max_steps=300,
        **images,
    )
    finetune = train(
        "llava.finetune",
        runs,
        words,
        data__data_path=data / "finetune.json",
        data__global_batch_size=32,
        model__language__from_pretrained="gpt.pretrain",
        model__vision__from_pretrained="llava.pretrain",
        model__projector__from_pretrained="llava.pretrain",
        trainer__max_steps=600,
        **images,
    )
    held_out = data / "held_out.json"
    nemo_run("evaluate", str(finetune), "--data", str(held_out), "--image-folder", str(data / "images"))
    sample = json.loads(held_out.read_text(encoding="utf-8"))[0]
    image = data / "images" / sample["image"]
    nemo_run("chat", str(finetune), "--image", str(image), "--prompt", prepare.QUESTIONS[0])

    curves = directory / "loss.png"
    plot_losses({"gpt.pretrain": text, "llava.pretrain": pretrain, "llava.finetune": finetune}, curves)
    accuracy = json.loads((finetune / "evaluation.json").read_text(encoding="utf-8"))["accuracy"]
    print(f"\nloss curves:       {curves}")
    print(f"held-out accuracy: {accuracy:.3f} (at least {REQUIRED_ACCURACY} is expected)")
    print(f"time:              {time.monotonic() - started:.0f} s")
    if accuracy < REQUIRED_ACCURACY:
        sys.exit("error: the held-out accuracy is too low")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: run.py FOLDER [WORDS OF NEMO-RUN ...]")
    main(Path(sys.argv[1]), sys.argv[2:])
