"""Write a table of captions and a table of questions about pictures as LLaVA data files.

    python docs/examples/small_data/convert.py captions.csv questions.csv data

captions.csv has the columns `file` and `caption`, questions.csv `file`, `question` and `answer`; a file is a name in
the folder of the pictures. Both are UTF-8, with commas, semicolons or tabs between the cells. Line breaks inside of a
cell become spaces: a caption ends at the first one, and text.txt has a text on each line. Every tenth picture with
questions is held out, to measure what was learnt: its questions are in held_out.json, and neither they nor its captions
are in captions.json, questions.json or text.txt. The last holds the words of the other two, for a language model of
your own.
"""

import csv
import io
import json
import posixpath
import shlex
import sys
from collections import defaultdict
from pathlib import Path

HELD_OUT_EVERY = 10


def turns(question: str, answer: str) -> list[dict[str, str]]:
    """Return one exchange."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def text_of(table: str) -> str:
    """Return the text of a file, as UTF-8."""
    data = Path(table).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # What Excel calls CSV, and what it calls Unicode text.
        coding = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
        sys.exit(
            f"error: {table}: byte {error.start:,} ({data[error.start]:#x}) is not UTF-8 text: write the file anew "
            f"with iconv -f {coding} -t UTF-8 {shlex.quote(table)} > NEW.csv, or save it as CSV UTF-8"
        )


def place(name: str) -> str:
    """Return the name of a file as every table has it: `./a.png` is `a.png`."""
    return posixpath.normpath(name)


def read(table: str, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file that has some columns, with commas, semicolons or tabs between the cells."""
    text = text_of(table)
    readers = [csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter) for delimiter in ",;\t"]
    reader = max(readers, key=lambda each: (len({*columns} & {*(names := each.fieldnames or ())}), len(names)))
    if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
        sys.exit(
            f"error: {table}: no column {', '.join(missing)}: rename those that it has in its first "
            f"line: {', '.join(reader.fieldnames or ())}"
        )
    rows = []
    for row in reader:
        line = f"error: {table}: line {reader.line_num} has"
        if any(row.get(None, ())):
            delimiter = reader.reader.dialect.delimiter
            sys.exit(f"{line} more cells than the first line: put a text with {delimiter!r} in it between quotes")
        if None in row.values():
            sys.exit(f"{line} fewer cells than the first line: write the missing ones, or leave the line out")
        cells = {column: " ".join(cell.split()) for column, cell in row.items()}
        rows.append({**cells, "file": place(row["file"])})
    return rows


def main(captions: str, questions: str, target: str) -> None:
    """Convert two tables into a folder of data files."""
    folder = Path(target)
    asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in read(questions, "file", "question", "answer"):
        asked[row["file"]].append((row["question"], row["answer"]))
    apart = set(sorted(asked)[::HELD_OUT_EVERY])
    captioned = read(captions, "file", "caption")
    described = [
        {
            "id": row["file"],
            "image": row["file"],
            "conversations": turns("<image>\nDescribe the image.", row["caption"]),
        }
        for row in captioned
        if row["file"] not in apart
    ]
    chats, held_out, lines = [], [], [row["conversations"][1]["value"] for row in described]
    for file, pairs in sorted(asked.items()):
        if file in apart:  # one question a sample, so that each answer is counted
            held_out += [
                {"id": f"{file}-{i}", "image": file, "conversations": turns(f"<image>\n{question}", answer)}
                for i, (question, answer) in enumerate(pairs)
            ]
            continue
        lines += [f"USER: {question} ASSISTANT: {answer}" for question, answer in pairs]
        talk = [turn for question, answer in pairs for turn in turns(question, answer)]
        talk[0]["value"] = f"<image>\n{talk[0]['value']}"
        chats.append({"id": file, "image": file, "conversations": talk})
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in (("captions", described), ("questions", chats), ("held_out", held_out)):
        text = json.dumps(samples, indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    (folder / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lone = {row["file"] for row in captioned}.symmetric_difference(asked)
    if lone:
        print(f"note: {len(lone)} pictures are in one of the tables only, such as {min(lone)}")
    print(
        f"{folder}: {len(described)} captions, {len(chats)} pictures with questions; "
        f"held out are {len(apart)} pictures with {len(held_out)} questions"
    )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: convert.py captions.csv questions.csv FOLDER")
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
