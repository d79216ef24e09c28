"""Training speed, memory and FP8 accuracy on one GPU, then the digits job end to end, in eight minutes.

    python benchmarks/gpu.py --output gpu.json

Every figure comes from the real worker, started by the local executor on a built-in recipe: LLaVA-1.5 7B with random
weights, cut to the layers that fit, on made-up photos and conversations. docs/performance.md says what is measured and
why. A configuration that fails is reported with its reason, and the others go on; the exit code then is 1.

`--tiny` does the same, FP8 apart, with a model of CPU size in a minute or two, with or without a GPU.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
# The packages need not be installed: the processes that are started find them as this one does.
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

from _cases import FULL, TINY, Case, Scale, case_recipe, layers_that_fit, loss_difference, measure, parts  # noqa: E402
from _samples import Samples, write_samples  # noqa: E402
from _table import table  # noqa: E402

import executors  # noqa: E402
from executors.code_version import code_version  # noqa: E402
from neva_recipes import gpt, llava  # noqa: E402
from neva_recipes.config import Draft, Recipe, UserError, expand_path, set_field  # noqa: E402

_DIGITS = ROOT / "docs" / "examples" / "digits" / "prepare.py"
_POLL_SECONDS = 0.2
_REASON_LENGTH = 300


class OutOfTimeError(Exception):
    """Something was stopped because its time was over."""


class FailedRunError(Exception):
    """A run or a command ended with an error."""


class Benchmark:
    """One execution of the benchmark.

    Attributes:
        report: What is known so far; written to the output file after every part.
    """

    def __init__(self, scale: Scale, minutes: float, output: Path) -> None:
        """Prepare a benchmark.

        Args:
            scale: How large everything is.
            minutes: Time it may take.
            output: The JSON file; data and runs go to a folder of the same name without the ending.
        """
        self._scale = scale
        self._deadline = time.monotonic() + 60 * minutes
        self._output = output.resolve()
        self._folder = self._output.with_suffix("")
        self._prepare = _load_digits_module()
        self._slowest_case = 0.0
        self.report: dict[str, Any] = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": code_version(),
            "minutes": minutes,
            "scale": scale.size,
            "machine": None,
            "matmul": None,
            "training": [],
            "fp8_against_bf16": [],
            "digits": None,
            "failed": [],
            "skipped": [],
            "seconds": None,
        }

    def run(self, parts: Sequence[Case | Literal["digits"]]) -> int:
        """Measure the parts there is time for, print the table, and return the exit code.

        Args:
            parts: What to measure, in order.
        """
        started = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        # The photos are written while the matrices are multiplied: one needs the processor, the other the GPU.
        probe = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("_machine.py")), str(self._scale.matmul)],
            stdout=subprocess.PIPE,
            text=True,
        )
        samples = write_samples(
            self._folder / "data",
            self._prepare.train_tokenizer,
            tokens_per_image=self._scale.tokens_per_image,
            pretrain_lengths=self._scale.sample_lengths("pretrain"),
            finetune_lengths=self._scale.sample_lengths("finetune"),
        )
        printed, _ = probe.communicate()
        if probe.returncode:
            print("error: the machine cannot be described, see above", file=sys.stderr)
            return 1
        machine = json.loads(printed)
        self.report["matmul"], self.report["machine"] = machine.pop("matmul"), machine
        if self._scale is FULL and machine["gpu"] is None:
            print("error: torch sees no GPU here; --tiny runs without one", file=sys.stderr)
            return 2
        for part in parts:
            if part == "digits":
                self._run_digits()
            else:
                self._measure_case(part, samples)
        self.report["seconds"] = round(time.monotonic() - started, 1)
        self._save()
        print(f"\n{table(self.report)}\n\n{self._output}", flush=True)
        return 1 if self.report["failed"] else 0

    def _measure_case(self, case: Case, samples: Samples) -> None:
        """Run one training case and add its entry to the report."""
        entry: dict[str, Any] = {"name": case.name, "stage": case.stage, "fp8": case.fp8, "recompute": case.recompute}
        began = time.monotonic()
        left = self._deadline - began
        if left < self._slowest_case:
            self._skip(case.name, left)
            return
        print(f"{case.name} ...", flush=True)
        try:
            entry["num_layers"] = layers = self._layers(case)
            entry["micro_batch_size"] = self._scale.micro_batch[case.stage]
            recipe = case_recipe(case, self._scale, samples, layers)
            entry["run"] = self._train(recipe, case.name.replace(" ", "-"), min(left, self._scale.case_seconds))
        except (UserError, ValueError, OutOfTimeError, FailedRunError) as error:
            self._fail(entry, error)
        else:
            entry |= {"status": "done", **measure(Path(entry["run"]), self._scale.warm_up)}
            rate = entry["tflops_per_gpu"]
            entry["share_of_matmul"] = rate / self.report["matmul"]["tflops"] if rate else None
            self._compare(entry)
        entry["seconds"] = round(time.monotonic() - began, 1)
        if entry["status"] == "done":
            self._slowest_case = max(self._slowest_case, entry["seconds"])
            print(f"  {entry['tokens_per_second']:,.0f} tokens/s, {entry['seconds']:.0f} s in all", flush=True)
        self.report["training"].append(entry)
        self._save()

    def _layers(self, case: Case) -> int:
        gpu = self.report["machine"]["gpu"]
        if self._scale.size == "tiny" or gpu is None:
            return int(llava.finetune(self._scale.size).model.language.num_layers)
        return layers_that_fit(case, self._scale, gpu["memory_gib"] * 2**30, fp8=True)

    def _compare(self, entry: Mapping[str, Any]) -> None:
        """Add how far the losses of an FP8 case are from those of the bf16 case."""
        bf16 = Case(entry["stage"]).name
        reference = next((case for case in self.report["training"] if case["name"] == bf16), None)
        if entry["fp8"] and reference is not None and reference["status"] == "done":
            difference = loss_difference(entry["loss"], reference["loss"])
            self.report["fp8_against_bf16"].append({"name": entry["name"], "reference": bf16, **difference})

    def _run_digits(self) -> None:
        """Train the digits job in its three stages, in bf16, and evaluate it on the held-out digits."""
        entry: dict[str, Any] = {"name": "digits", "runs": {}}
        began = time.monotonic()
        if self._deadline - began < self._slowest_case:
            self._skip("digits", self._deadline - began)
            return
        print("digits ...", flush=True)
        try:
            entry |= {"accuracy": self._digits_accuracy(entry["runs"]), "status": "done"}
        except (UserError, OutOfTimeError, FailedRunError) as error:
            self._fail(entry, error)
        entry["seconds"] = round(time.monotonic() - began, 1)
        self.report["digits"] = entry
        self._save()

    def _digits_accuracy(self, runs: dict[str, str]) -> float:
        data = self._folder / "digits"
        self._prepare.main(data)
        held_out = data / "held_out.json"
        if self._scale.digits_questions is not None:
            questions = json.loads(held_out.read_text(encoding="utf-8"))
            held_out.write_text(json.dumps(questions[: self._scale.digits_questions]), encoding="utf-8")
        recipes = {"gpt.pretrain": gpt.pretrain, "llava.pretrain": llava.pretrain, "llava.finetune": llava.finetune}
        files = {"gpt.pretrain": "text.txt", "llava.pretrain": "pretrain.json", "llava.finetune": "finetune.json"}
        for name, make in recipes.items():
            recipe = make("tiny")
            fields: dict[str, object] = {
                "data.data_path": data / files[name],
                "data.tokenizer": data / "tokenizer",
                # The recipe loads in the training process, which a GPU would wait for.
                "data.num_workers": min(8, len(os.sched_getaffinity(0)) // 2),
                "model.language.vocab_size": 640,
                "precision.precision": "bf16",
                "trainer.max_steps": self._scale.digits_steps[name],
            }
            if name != "gpt.pretrain":
                fields |= {"data.image_folder": data / "images", "model.language.from_pretrained": runs["gpt.pretrain"]}
            if name == "llava.finetune":
                for part in ("vision", "projector"):
                    fields[f"model.{part}.from_pretrained"] = runs["llava.pretrain"]
            for field, value in fields.items():
                set_field(recipe, field, str(value))
            runs[name] = self._train(recipe, f"digits-{name}", self._deadline - time.monotonic())
        run = Path(runs["llava.finetune"])
        self._nemo_run("evaluate", str(run), "--data", str(held_out), "--image-folder", str(data / "images"))
        return float(json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["accuracy"])

    def _train(self, recipe: Draft[Recipe], name: str, seconds: float) -> str:
        """Run a recipe on this machine to its end and return the path of its run directory.

        Raises:
            UserError: The recipe or its run directory is not as it should be.
            OutOfTimeError: It took longer than `seconds`.
            FailedRunError: The run failed.
        """
        deadline = time.monotonic() + seconds
        run = executors.run(recipe, name=name, runs_dir=self._folder / "runs", detach=True)
        try:
            while not run.has_ended() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        finally:
            in_time = run.has_ended()
            if not in_time:
                run.cancel(force=True)
        if not in_time:
            raise OutOfTimeError(f"stopped after {seconds:.0f} s: its time was over; its log is in {run.path}")
        status = run.status()
        if status.state != "succeeded":
            raise FailedRunError(f"{status.reason or status.state}; its log is in {run.path}")
        return str(run.path)

    def _nemo_run(self, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "neva_recipes.cli.main", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=max(1.0, self._deadline - time.monotonic())
            )
        except subprocess.TimeoutExpired:
            raise OutOfTimeError(f"nemo-run {arguments[0]} was stopped: the time was over") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise FailedRunError(f"nemo-run {arguments[0]} exited with code {done.returncode}: {lines[-1]}")

    def _fail(self, entry: dict[str, Any], error: Exception) -> None:
        reason = " ".join(str(error).split())
        entry |= {"status": "failed", "reason": reason}
        self.report["failed"].append(entry["name"])
        print(f"  failed: {reason[:_REASON_LENGTH]}", flush=True)

    def _skip(self, name: str, left: float) -> None:
        self.report["skipped"].append(name)
        print(f"{name}: skipped, {max(0.0, left):.0f} s are left", flush=True)
        self._save()

    def _save(self) -> None:
        unfinished = self._output.with_name(f".{self._output.name}.unfinished")
        unfinished.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self._output)


def _load_digits_module() -> Any:
    spec = importlib.util.spec_from_file_location("prepare", _DIGITS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="time it may take (default: 8)")
    parser.add_argument("--output", type=expand_path, help="JSON file (default: runs/gpu-benchmark-DATE-TIME.json)")
    parser.add_argument("--tiny", action="store_true", help="models of CPU size, few steps, no FP8")
    options = parser.parse_args()
    output = options.output or Path("runs") / f"gpu-benchmark-{datetime.now():%Y%m%d-%H%M%S}.json"
    return Benchmark(TINY if options.tiny else FULL, options.minutes, output).run(parts(with_fp8=not options.tiny))


if __name__ == "__main__":
    sys.exit(main())
