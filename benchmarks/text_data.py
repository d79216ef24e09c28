"""What `nemo-run data text` takes beside the bare tokenizer, and with two processes beside one.

    python benchmarks/text_data.py                 # some minutes on two free cores
    python benchmarks/text_data.py --mib 256       # more text

The text is that of Python's standard library, as JSONL with documents of about two kilobytes, again and again; the
tokenizers are trained on it. The bare tokenizer encodes the same documents, in memory already, in calls of a hundred,
in one thread, and returns lists of ids. The measurements are taken in turn, several times, and the best of each
counts: what else a machine does only adds to them.

Seconds are CPU time, since wall time depends on what else a machine does. Two processes that encode, and the one that
reads and writes, take T together where one alone takes t: on two free cores they are 2 t / T times as fast. The wall
time is printed beside it. The exit code is 1 if a target is missed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.token_data import make_token_data
from neva_recipes.tokenizers import Kind, train

LEAST_SHARE, LEAST_GAIN = 0.9, 1.7

KINDS: tuple[Kind, ...] = ("byte-level", "sentencepiece")
VOCAB_SIZE = 16_000
AT_ONCE = 100
LENGTH = 2_000


def documents(mib: int) -> list[str]:
    """Return documents of Python's standard library with this many MiB."""
    found, size = list[str](), 0
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    whole = [path.read_text("utf-8", errors="ignore") for path in files]
    texts = [text[start : start + LENGTH] for text in whole for start in range(0, len(text), LENGTH)]
    while size < mib * 2**20:
        found += texts
        size += sum(len(text.encode()) for text in texts)
    return found


def measured(work: Callable[[], int]) -> tuple[float, float]:
    """Return the tokens per second of CPU time of this process and its children, and of wall time."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    tokens = work()
    return tokens / (sum(os.times()[:4]) - cpu), tokens / (time.perf_counter() - wall)


def bare(tokenizer: Path, texts: list[str]) -> Callable[[], int]:
    """Return what encodes texts and does nothing else."""
    if tokenizer.is_dir():
        import tokenizers

        backend = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))

        def encode(some: list[str]) -> list[list[int]]:
            return [found.ids for found in backend.encode_batch_fast(some, add_special_tokens=False)]
    else:
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))

        def encode(some: list[str]) -> list[list[int]]:
            return processor.encode(some, num_threads=1)

    parts = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
    return lambda: sum(sum(map(len, encode(part))) for part in parts)


def main() -> int:
    """Print the rates, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=24, help="MiB of text (24)")
    parser.add_argument("--times", type=int, default=4, help="times that each is measured (4)")
    given = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts, missed = documents(given.mib), False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, sample = folder / "text.jsonl", folder / "sample.jsonl"
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
        source.write_text("".join(lines), encoding="utf-8")
        sample.write_text("".join(lines[: len(lines) // given.mib * 8]), encoding="utf-8")
        for kind in KINDS:
            tokenizer = folder / ("bytes" if kind == "byte-level" else "pieces.model")
            train([sample], tokenizer, vocab_size=VOCAB_SIZE, kind=kind)
            read_tokenizer(tokenizer)
            number = 0

            def make(workers: int, tokenizer: Path = tokenizer) -> int:
                nonlocal number
                number += 1
                out = folder / f"{tokenizer.name}-{number}"
                made = make_token_data([source], out, tokenizer=tokenizer, json_keys=["text"], workers=workers)
                return made.counts.tokens

            alone, one, two = list[float](), list[float](), list[float]()
            one_wall, two_wall = list[float](), list[float]()
            for _ in range(given.times):
                alone.append(measured(bare(tokenizer, texts))[0])
                for workers, rates, walls in ((1, one, one_wall), (2, two, two_wall)):
                    cpu, wall = measured(lambda workers=workers: make(workers))
                    rates.append(cpu)
                    walls.append(wall)
            share, gain, by_wall = max(one) / max(alone), 2 * max(two) / max(one), max(two_wall) / max(one_wall)
            print(f"{kind}: {max(one):,.0f} tokens/s with one process, {share:.2f} of the bare tokenizer")
            print(f"  two processes {gain:.2f} of one, by wall time {by_wall:.2f}", flush=True)
            missed |= share < LEAST_SHARE or gain < LEAST_GAIN
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
