import json
import os
import pty
import re
import shutil
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from neva_model.inference import chat
from neva_model.inference.options import Sampling
from neva_model.inference.session import Session
from neva_recipes.config import UserError

COMMAND = [sys.executable, "-m", "neva_recipes.cli.main", "chat"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run_chat(*arguments, given=""):
    words = [*COMMAND, *map(str, arguments)]
    return subprocess.run(words, input=given.encode(), capture_output=True, env=ENVIRONMENT, timeout=300, check=False)


@pytest.mark.slow
def test_a_conversation_through_a_pipe(llava, llava_run, pictures):
    given = "\n".join(
        [
            "What is in the picture?",
            "",
            "Is it odd or even? 日本",
            f"/image {pictures / 'picture 1.png'}",
            "What is in the picture?",
            "/reset",
            "What?",
            "/exit",
            "never asked",
        ]
    )
    done = run_chat(llava_run, "--image", pictures / "picture 0.png", "--max-new-tokens=12", given=given)
    assert done.returncode == 0, done.stderr.decode()

    session = Session(llava, Sampling(max_new_tokens=12))
    session.show_image(pictures / "picture 0.png")
    expected = ["".join(session.ask("What is in the picture?")), "".join(session.ask("Is it odd or even? 日本"))]
    session.show_image(pictures / "picture 1.png")
    expected.append("".join(session.ask("What is in the picture?")))
    session.reset()
    expected.append("".join(session.ask("What?")))
    assert done.stdout.decode() == "".join(f"{answer}\n" for answer in expected)
    notices = done.stderr.decode().splitlines()
    assert all(line == "(cut off after 12 tokens; --max-new-tokens allows more)" for line in notices), notices


@pytest.mark.slow
def test_one_question_and_one_mistake_on_the_command_line(llava, llava_directory, pictures, tmp_path):
    done = run_chat(llava_directory, "--image", pictures / "picture 0.png", "--prompt", "What?", "--max-new-tokens=9")
    session = Session(llava, Sampling(max_new_tokens=9))
    session.show_image(pictures / "picture 0.png")
    assert done.stdout.decode() == "".join(session.ask("What?")) + "\n"
    assert done.returncode == 0

    broken = tmp_path / "broken picture.png"
    broken.write_bytes((pictures / "picture 0.png").read_bytes()[:60])
    failed = run_chat(llava_directory, f"--image={broken}", "--conv-template=v1", "--prompt=What?")
    assert failed.returncode == 2
    assert failed.stdout == b""
    assert len(failed.stderr.decode().splitlines()) == 1
    assert f"error: image file {broken} cannot be decoded" in failed.stderr.decode()


@pytest.mark.slow
def test_a_terminal_is_greeted_and_survives_mistakes(llava_directory, tmp_path):
    """At a terminal a mistake is reported and the next question is answered."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, str(llava_directory), "--conv-template=v1", "--max-new-tokens=5"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    os.close(terminal)
    os.write(master, f"/image {tmp_path}/none.png\n/nonsense\nWhat?\n/exit\n".encode())
    output, errors = process.communicate(timeout=300)
    os.close(master)
    assert process.returncode == 0
    assert output.decode().startswith("/image FILE begins a conversation about an image")
    lines = [line for line in errors.decode().splitlines() if not line.startswith("(")]
    assert lines[0] == f"error: image file {tmp_path}/none.png does not exist"
    assert lines[1].startswith("error: /nonsense: no such command; /image FILE")
    assert len(lines) == 2


def test_wrong_input_is_named(llava_directory, llama_directory, llama_run, pictures, tmp_path, monkeypatch):
    def message(*arguments):
        with pytest.raises(UserError) as caught:
            chat.main(list(map(str, arguments)))
        return str(caught.value)

    picture = pictures / "picture 0.png"
    assert "neither a run directory nor a checkpoint" in message(tmp_path / "none", "--prompt=x")
    assert "text-only model" in message(llama_directory, f"--image={picture}", "--prompt=x")
    assert "text-only model" in message(llama_run, f"--image={picture}", "--prompt=x")
    assert f"image file {tmp_path}/none.png does not exist" in message(llava_directory, f"--image={tmp_path}/none.png")
    assert "did you mean llama_3" in message(llava_directory, "--conv-template=lama_3", "--prompt=x")
    assert "no special token <|begin_of_text|>" in message(llava_directory, "--conv-template=llama_3", "--prompt=x")
    assert "the model's limit is 384" in message(llava_directory, "--prompt", "What is that? " * 200)
    assert "--temperature=-1" in message(llava_directory, "--temperature=-1", "--prompt=x")
    assert "half a surrogate pair" in message(llava_directory, "--prompt=\udc80")


@pytest.mark.parametrize(
    ("lengths", "is_told"),
    [
        ({"images": 1.0, "measured": True}, True),
        ({"images": 0.9, "measured": True}, False),
        ({"images": 1.0, "measured": False}, False),
        (None, False),
    ],
)
def test_a_question_without_an_image_after_a_training_that_had_one_always(
    llava_run, capsys, tmp_path, pictures, lengths, is_told
):
    run = shutil.copytree(llava_run, tmp_path / "run")
    if lengths is not None:
        (run / "plan.json").write_text(json.dumps({"lengths": lengths}))
    note = "note: its training had an image in every sample: without --image FILE answers may be poor"
    for words, expected in (([], is_told), (["--image", str(pictures / "picture 0.png")], False)):
        assert chat.main([str(run), "--prompt", "What?", "--max-new-tokens=2", *words]) == 0
        assert (note in capsys.readouterr().err) == expected


def test_data_that_has_changed_since_the_plan_says_nothing_of_the_training(llava_run, capsys, tmp_path):
    run = shutil.copytree(llava_run, tmp_path / "run")
    data = tmp_path / "data.json"
    saved = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(re.sub(r"(?m)^  data_path: .*$", f"  data_path: {data}", saved))
    data.write_text("[1]")
    file = {"size": 3, "digest": f"crc32:{zlib.crc32(b'[1]'):08x}", "is_whole": True}
    plan = {"lengths": {"images": 1.0, "measured": True}, "data_files": [file]}
    (run / "plan.json").write_text(json.dumps(plan))
    for content, is_told in (("[1]", True), ("[2]", False)):
        data.write_text(content)
        assert chat.main([str(run), "--prompt", "What?", "--max-new-tokens=2"]) == 0
        assert ("had an image in every sample" in capsys.readouterr().err) == is_told


def test_a_photo_with_an_exif_rotation_brings_a_note(llava_directory, capsys, monkeypatch, tmp_path):
    exif = Image.Exif()
    for number in (1, 6):
        exif[0x0112] = number
        Image.new("RGB", (40, 20)).save(tmp_path / f"{number}.jpg", exif=exif)
    for given, notes in (("1.jpg", 0), ("6.jpg", 1)):
        lines = iter([f"/image {tmp_path / given}", "/exit"])
        monkeypatch.setattr("builtins.input", lambda _, lines=lines: next(lines))
        chat.main([str(llava_directory), f"--image={tmp_path / given}"])
        told = capsys.readouterr().err
        assert told.count("note: 1 of 1 image looked at has an EXIF rotation, which is not applied") == 2 * notes


def test_a_file_of_several_frames_brings_a_note(llava_directory, capsys, monkeypatch, tmp_path):
    frames = [Image.new("RGB", (40, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "one.gif")
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    for given, notes in (("one.gif", 0), ("two.gif", 1)):
        monkeypatch.setattr("builtins.input", lambda _: "/exit")
        chat.main([str(llava_directory), f"--image={tmp_path / given}"])
        assert capsys.readouterr().err.count("note: 1 of 1 image looked at has several pages or frames") == notes


def test_a_mistake_in_a_pipe_ends_the_command(llava_directory, capsys, monkeypatch):
    lines = iter(["/image nowhere.png", "What?"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    with pytest.raises(UserError, match=r"nowhere\.png does not exist"):
        chat.main([str(llava_directory)])
    assert capsys.readouterr().out == ""
