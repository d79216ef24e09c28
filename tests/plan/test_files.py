"""Each way in which a recipe's files can be wrong has its code, and good files have none."""

import bz2
import gzip
import json
import os
import struct

import pytest
import tokenizers
import yaml
from PIL import Image
from tokenizers import decoders, models, pre_tokenizers

from neva_recipes import gpt, llava
from neva_recipes.config import build, recipe_to_yaml, set_field
from neva_recipes.plan.data.files import check_files, records_checked
from tests.plan.model_directories import write_model

SPECIALS = ["<s>", "</s>"]
LANGUAGE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}
TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}


def sample(number, **changes):
    turns = [{"from": "human", "value": "<image>\nWhich digit?"}, {"from": "gpt", "value": "A seven."}]
    return {"id": str(number), "image": f"images/{number}.png", "conversations": turns} | changes


def distinct(number, **changes):
    """Return a sample with words of its own, on one of the eight images."""
    turns = [{"from": "human", "value": f"<image>\nWhich digit has {number}?"}, {"from": "gpt", "value": "A seven."}]
    return sample(number % 8, conversations=turns, **changes)


def write_tokenizer(folder, specials=SPECIALS):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(list(specials))
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with everything a tiny finetuning needs, and the recipe that names it all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"images/{number}.png")
    (tmp_path / "chats.json").write_text(json.dumps([sample(number) for number in range(8)]))
    write_tokenizer(tmp_path / "tokens")
    write_model(tmp_path / "language", LANGUAGE)
    write_model(tmp_path / "tower", TOWER)
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.tokenizer = "chats.json", "tokens"
    recipe.model.language.from_pretrained, recipe.model.vision.from_pretrained = "language", "tower"
    run = tmp_path / "runs/stage-1/checkpoints/step-00000010"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    (run / "weights.pt").write_text("12345")
    (run / "checkpoint.json").write_text(json.dumps({"step": 10, "files": {"weights.pt": 5}}))
    recipe.model.projector.from_pretrained = "runs/stage-1"
    return tmp_path, recipe


def found(recipe):
    return [(finding.code, finding.severity, finding.line()) for finding in check_files(build(recipe))]


def test_good_files_are_passed_over(world):
    assert found(world[1]) == []


def test_names_of_the_hub_are_left_to_the_worker(world):
    _, recipe = world
    recipe.data.tokenizer = recipe.model.vision.from_pretrained = "owner/name"
    assert found(recipe) == []


def rewrite(path, change):
    """Apply a change to the JSON in a file."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def set_in(name, key, value):
    return lambda folder, recipe: rewrite(folder / name, lambda fields: {**fields, key: value})


def samples(*records):
    return lambda folder, recipe: (folder / "chats.json").write_text(json.dumps(records))


def text(name, content):
    return lambda folder, recipe: (folder / name).write_bytes(content)


def field(name, value):
    return lambda folder, recipe: set_field(recipe, name, value)


def model_with(name, fields):
    return lambda folder, recipe: write_model(folder / name, fields)


def remove(name):
    return lambda folder, recipe: (folder / name).unlink()


def saved_field(name, value):
    def change(folder, recipe):
        path = folder / "runs/stage-1/checkpoints/step-00000010/recipe.yaml"
        fields = yaml.safe_load(path.read_text())
        group = fields
        *groups, last = name.split(".")
        for part in groups:
            group = group[part]
        group[last] = value
        path.write_text(yaml.safe_dump(fields))

    return change


def smaller_vocabulary(folder, recipe):
    recipe.model.language.vocab_size, recipe.model.language.from_pretrained = 257, None


def tokenizer_of_chatml(folder, recipe):
    write_tokenizer(folder / "tokens", ["<|im_start|>", "<|im_end|>"])


def old_index_alone(folder, recipe):
    text("language/model.safetensors.index.json", b'{"weight_map": {"a": "1-of-1.safetensors"}}')(folder, recipe)
    remove("language/model.safetensors")(folder, recipe)


FAULTS = [
    (field("data.data_path", "none"), "file-not-set", ["data.data_path=none", "add data.data_path=FILE"]),
    (remove("chats.json"), "file-missing", ["data.data_path=chats.json: no such file"]),
    (field("data.validation_data_path", "images"), "file-kind", ["is a folder, expected a file"]),
    (field("data.image_folder", "chats.json"), "file-kind", ["is a file, expected a folder"]),
    (field("model.vision.from_pretrained", "chats.json"), "file-kind", ["is a file, expected a folder"]),
    (
        field("data.data_path", "ch*s.json"),
        "file-kind",
        ["patterns are not read", "one file matches it", "set data.data_path=", "chats.json"],
    ),
    (field("data.data_path", "nothing*.json"), "file-missing", ["no such file"]),
    (field("data.validation_data_path", "tokens/tokenizer.json"), "data-format", ["expected a JSON array"]),
    (text("chats.json", b"[]"), "data-format", ["holds no sample"]),
    (text("chats.json", b'[{"a": 1}, {'), "data-format", ["after 1 sample, at byte", "truncated"]),
    (text("chats.json", json.dumps([sample(0)] * 8).encode()[:-9]), "data-format", ["after 7 samples", "truncated"]),
    (text("chats.json", b"\xff\xfe[]"), "data-format", ["not UTF-8"]),
    (text("chats.json", bz2.compress(b"[]")), "data-format", ["is compressed with bzip2", "bunzip2 -k"]),
    (samples({"id": 1}), "bad-sample", ["sample 0: conversations is empty or missing"]),
    (
        samples(sample(0), sample(1, conversations=[{"from": "gpt", "value": "Hi."}])),
        "bad-sample",
        ["sample 1: turn 1"],
    ),
    (
        samples(sample(0, conversations=[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": " "}])),
        "sample-without-loss",
        ["sample 0: no answer: nothing to learn from", "1 of 1 sample"],
    ),
    (samples(sample(0, image=["a.png", "b.png"])), "bad-sample", ["expected the name of one image file"]),
    (field("data.conv_template", "plain"), None, []),
    (
        samples(sample(0), sample(9)),
        "image-missing",
        ["1 of 2 images looked for", "images/9.png", "or data.on_bad_sample=skip"],
    ),
    (field("data.image_folder", "images"), "image-missing", ["data.image_folder=images", "8 of 8 images"]),
    (text("images/1.png", b""), "image-unusable", ["1 of the images", "images/1.png (sample 1): it is empty"]),
    (
        text("images/1.png", b"<html>Not found</html>"),
        "image-unusable",
        ["images/1.png (sample 1): it is of no known image format"],
    ),
    (
        text("images/1.png", b"P6 12000 8000 255\n" + bytes(2**20)),
        "image-unusable",
        ["images/1.png (sample 1): it has 12000x8000 pixels, expected at most 89478485"],
    ),
    (
        text("images/1.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 12_000, 8_000)),
        "image-unusable",
        ["images/1.png (sample 1): it has 12000x8000 pixels, expected at most 89478485"],
    ),
    (text("images/1.png", b"P6 9000 9000 255\n" + bytes(2**20)), None, []),
    (
        text("images/1.png", b"P6 20000 20000 255\n" + bytes(2**20)),
        "image-unusable",
        ["it has more than 178956970 pixels"],
    ),
    (
        text("images/1.png", b"version https://git-lfs.github.com/spec/v1"),
        "image-unusable",
        ["(sample 1): it is a Git LFS pointer: git lfs pull fetches the file"],
    ),
    (smaller_vocabulary, "vocabulary-size", ["has 258 tokens", "set model.language.vocab_size=258"]),
    (field("data.conv_template", "chatml"), "template-tokens", ["<|im_start|>", "data.conv_template=v1"]),
    (tokenizer_of_chatml, "template-tokens", ["<s>, </s>", "data.conv_template=chatml or"]),
    (text("tokens/tokenizer.json", b"{"), "tokenizer-unusable", ["tokens/tokenizer.json: cannot be read"]),
    (field("data.tokenizer", "images"), "tokenizer-unusable", ["holds no tokenizer"]),
    (field("data.tokenizer", "chats.json"), "tokenizer-unusable", ["cannot be read as a SentencePiece model"]),
    (
        model_with("language", {**LANGUAGE, "hidden_size": 64}),
        "shape-mismatch",
        # The projector's weights are of the other size, so that no size would do.
        ["model.language.kv_channels=none: config.json there: hidden_size is 64; head_dim is 16"],
    ),
    (
        set_in("language/config.json", "hidden_size", 64),
        "checkpoint-unusable",
        ["language/model.safetensors: ", " has shape ["],
    ),
    (
        set_in("language/config.json", "num_attention_heads", 0),
        "checkpoint-unusable",
        ["language/config.json: num_attention_heads is 0, expected a whole number from 1"],
    ),
    (set_in("language/config.json", "hidden_act", "gelu"), "shape-mismatch", ["only silu is supported"]),
    (set_in("language/config.json", "model_type", "mamba"), "checkpoint-unusable", ["model_type is mamba"]),
    (
        model_with("language", {**LANGUAGE, "vocab_size": 500}),
        "vocabulary-size",
        ["500 rows", "the tokenizer 258 tokens", "set model.language.vocab_size=500"],
    ),
    (field("model.language.from_pretrained", "tower"), "shape-mismatch", ["no language model"]),
    (
        model_with("tower", {**TOWER, "image_size": 112}),
        "shape-mismatch",
        ["image_size is 112", "set model.vision.image_size=112"],
    ),
    (
        text("tower/preprocessor_config.json", b'{"crop_size": {"height": 224, "width": 224}}'),
        "shape-mismatch",
        ["224 pixels"],
    ),
    (remove("tower/model.safetensors"), "checkpoint-unusable", ["holds no weights"]),
    (text("language/model.safetensors.index.json", b'{"weight_map": {"a": "1-of-1.safetensors"}}'), None, []),
    (old_index_alone, "checkpoint-unusable", ["1-of-1.safetensors: is missing, but"]),
    (field("model.projector.from_pretrained", "runs"), "checkpoint-unusable", ["neither a Hugging Face directory"]),
    (
        remove("runs/stage-1/checkpoints/step-00000010/weights.pt"),
        "checkpoint-unusable",
        ["weights.pt: is missing"],
    ),
    (remove("runs/stage-1/checkpoints/step-00000010/recipe.yaml"), "checkpoint-unusable", ["recipe.yaml"]),
    (
        field("model.projector.mm_projector_type", "linear"),
        "shape-mismatch",
        ["was trained with mm_projector_type=mlp2x_gelu"],
    ),
    (
        saved_field("model.vision.hidden_size", 256),
        "shape-mismatch",
        ["model.vision.hidden_size=128: was trained with hidden_size=256"],
    ),
]


@pytest.mark.parametrize(("fault", "code", "parts"), FAULTS)
def test_a_fault(world, fault, code, parts):
    folder, recipe = world
    fault(folder, recipe)
    findings = found(recipe)
    assert [name for name, _, _ in findings] == ([code] if code else [])
    for _, severity, line in findings:
        assert severity == "error" and "\n" not in line
        assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    "fault", [samples(sample(0), sample(1, conversations=[])), samples(sample(0), sample(9)), text("images/0.png", b"")]
)
def test_what_is_skipped_is_a_warning(world, fault):
    folder, recipe = world
    fault(folder, recipe)
    ((_, severity, line),) = found(recipe)
    assert severity == "error" and "data.on_bad_sample=skip passes over such samples" in line
    recipe.data.on_bad_sample = "skip"
    ((_, severity, line),) = found(recipe)
    assert severity == "warning" and "on_bad_sample" not in line
    (folder / "chats.json").write_text(json.dumps([{"id": 1}]))
    assert [severity for _, severity, _ in found(recipe)] == ["error"]
    recipe.data.on_bad_sample = "error"  # there is nothing else to train on
    ((_, severity, line),) = found(recipe)
    assert severity == "error" and "on_bad_sample" not in line


def test_samples_that_share_an_unusable_image_are_all_lost(world):
    folder, recipe = world
    samples(*(distinct(8 * number) for number in range(5)))(folder, recipe)
    text("images/0.png", b"")(folder, recipe)
    recipe.data.on_bad_sample = "skip"
    ((code, severity, line),) = found(recipe)
    assert (code, severity) == ("image-unusable", "error")  # nothing can take their place
    assert "1 of the images looked at cannot be used, the first is images/0.png (sample 0): it is empty" in line


SILENT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": " "}]}
SILENT_PICTURE = sample(0, conversations=[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": " "}])
HELD_OUT = sample(0, conversations=[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A bird."}])


@pytest.mark.parametrize(
    ("role", "files", "severity"),
    [
        ("data_path", [[sample(0)], [SILENT_PICTURE]], "warning"),
        ("data_path", [[sample(0)], [SILENT]], "error"),
        ("validation_data_path", [[HELD_OUT], [SILENT]], "warning"),
        ("validation_data_path", [[SILENT], [SILENT_PICTURE]], "error"),
    ],
)
def test_in_training_each_kind_of_sample_needs_one_in_some_file(world, role, files, severity):
    folder, recipe = world
    for name, records in zip(("a.json", "b.json"), files, strict=True):
        (folder / name).write_text(json.dumps(records))
    setattr(recipe.data, role, ["a.json", "b.json"])
    assert {(code, found_as) for code, found_as, _ in found(recipe)} == {("sample-without-loss", severity)}


@pytest.mark.parametrize("format_name", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_images_of_every_format_are_images(format_name, world):
    folder, recipe = world
    Image.init()
    if format_name not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {format_name}")
    Image.new("RGB", (8, 8)).save(folder / "images/0.png", format=format_name)
    assert found(recipe) == []


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        (b"\n".join(json.dumps(sample(number)).encode() for number in range(8)) + b"\n\n", []),
        (b"\r\n".join(json.dumps(sample(number)).encode() for number in range(8)), []),
        (b"\n".join([json.dumps(sample(0)).encode()] * 8)[:-9], ["data-format"]),
        (b"\xef\xbb\xbf" + json.dumps(sample(0)).encode(), []),
        (b"\n", ["data-format"]),
        # A line longer than what is read of the end tells nothing.
        (json.dumps(sample(0, id="x" * 2**17)).encode(), []),
    ],
)
def test_the_end_of_a_file_of_lines(content, codes, world):
    folder, recipe = world
    (folder / "chats.jsonl").write_bytes(content)
    recipe.data.data_path = "chats.jsonl"
    assert [code for code, _, _ in found(recipe)] == codes


def test_a_pipe_is_no_file(world):
    folder, recipe = world
    os.mkfifo(folder / "pipe.json")
    recipe.data.validation_data_path = "pipe.json"
    ((code, _, line),) = found(recipe)
    assert code == "file-kind" and "is a pipe or device, expected a file" in line


def test_the_tokens_around_images_count(world):
    _, recipe = world
    recipe.model.use_im_start_end = True
    recipe.model.language.vocab_size = 258
    recipe.model.language.from_pretrained = None
    (finding,) = found(recipe)
    assert finding[0] == "vocabulary-size" and "set model.language.vocab_size=260" in finding[2]
    recipe.model.language.vocab_size = 260
    assert found(recipe) == []


TEXTS = [
    ("text.txt", b"One document.\nAnother.\n", []),
    ("text.jsonl", b'{"text": "One."}\n', []),
    ("text.jsonl", b'{"words": "One."}\n', [("data-format", "error")]),
    ("text.txt", b"\xff\xfe", [("data-format", "error")]),
    ("text.txt", b" \n", [("data-format", "error")]),
    ("text.JSONL", b'{"text": "One."}\n', []),
    ("text.JSONL", b'{"words": "One."}\n', [("data-format", "error")]),
    ("text.txt.bz2", bz2.compress(b"One."), [("data-format", "error")]),
    ("text.json", b'[{"text": "One."}]', [("data-format", "error")]),
    ("text.JSON.gz", gzip.compress(b'[{"text": "One."}]'), [("data-format", "error")]),
    ("text.json", b'{"text": "One."}\n{"text": "Two."}\n', [("data-format", "error")]),
    ("text.json", b"[One document.]\nAnother.\n", []),
    ("text.txt", b'\n [{"text": "One."}]', [("data-format", "warning")]),
    ("text.txt", b'He said "One."\n', []),
]


@pytest.mark.parametrize(("name", "content", "expected"), TEXTS)
def test_plain_text(world, name, content, expected):
    folder, _ = world
    (folder / name).write_bytes(content)
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path, recipe.data.tokenizer = name, "tokens"
    assert [(code, severity) for code, severity, _ in found(recipe)] == expected


@pytest.mark.parametrize(
    ("name", "good", "bad", "said"),
    [
        ("text.jsonl", b'{"text": "A day."}\n', b'{"txt": 1}\n', 'document 2001 has no "text" that is a string'),
        ("text.jsonl", b'{"text": "A day."}\n', b"{\n", "line 2001 is not valid JSON"),
        ("text.txt", b"A day that is like any other day of the year.\n", b"\xff\n", "line 2001 is not UTF-8 text"),
    ],
)
def test_every_document_of_a_small_file_is_read(world, name, good, bad, said):
    folder, _ = world
    (folder / name).write_bytes(good * 2000 + bad + good * 2000)
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path, recipe.data.tokenizer = name, "tokens"
    ((code, severity, line),) = found(recipe)
    assert (code, severity) == ("data-format", "error") and said in line


def test_every_sample_of_a_small_file_is_looked_at(world):
    folder, recipe = world
    records = [distinct(number) for number in range(40)]
    headers = " and the headers of 8 images"
    (folder / "chats.json").write_text(json.dumps(records))
    assert records_checked(build(recipe)) == f"all 40 records of chats.json{headers}"
    records[29] |= {"image": "images/99.png"}
    records[33] |= {"video": "a.mp4"}
    records[35] |= {"conversations": [*records[35]["conversations"][:1], {"from": "gpt", "value": ""}]}
    records[37] |= {"conversations": []}
    (folder / "good.json").write_text(json.dumps([distinct(number) for number in (50, 51, 52)]))
    (folder / "chats.json").write_text(json.dumps(records))
    findings = {code: (severity, line) for code, severity, line in found(recipe)}
    assert {code: severity for code, (severity, _) in findings.items()} == {
        "bad-sample": "error",
        "sample-without-loss": "warning",
        "image-missing": "error",
    }
    assert "sample 33: has video" in findings["bad-sample"][1]
    assert "2 of 40 samples looked at are bad" in findings["bad-sample"][1]
    assert "sample 35: no answer: nothing to learn from" in findings["sample-without-loss"][1]
    assert "1 of 37 images looked for" in findings["image-missing"][1]
    recipe.data.validation_data_path, recipe.data.data_path = "chats.json", "good.json"
    assert len(found(recipe)) == 3
    assert records_checked(build(recipe)) == (
        f"all 3 records of good.json and the headers of 3 images, all 40 records of chats.json{headers}"
    )


def test_of_captions_no_conversation_behind_the_first_ones_is_passed_over(world):
    folder, recipe = world
    longer = sample(0)["conversations"] * 2
    longer[2] = {"from": "human", "value": "Sure?"}
    records = [*(sample(number) for number in range(7)), sample(7, conversations=longer)]
    (folder / "chats.json").write_text(json.dumps(records))
    recipe.data.conv_template = "plain"
    ((code, severity, line),) = found(recipe)
    assert (code, severity) == ("bad-sample", "error") and "sample 7: data.conv_template=plain takes one" in line


def test_every_one_of_several_files_is_looked_at(world):
    folder, recipe = world
    (folder / "more.json").write_text(json.dumps([distinct(number) for number in range(3)]))
    recipe.data.data_path = "chats.json,more.json"
    assert found(recipe) == []
    assert records_checked(build(recipe)) == (
        "all 8 records of chats.json and the headers of 8 images, "
        "all 3 records of more.json and the headers of 3 images"
    )
    recipe.data.data_path = ["chats.json", "mor.json"]
    ((code, _, line),) = found(recipe)
    assert code == "file-missing" and "mor.json: no such file (did you mean more.json?)" in line
    recipe.data.data_path = ["chats.json", "more.json"]
    (folder / "more.json").write_text(json.dumps([distinct(0), sample(1, conversations=[])]))
    ((code, _, line),) = found(recipe)
    assert code == "bad-sample" and "more.json: sample 1: conversations is empty" in line
    recipe.data.data_path = []
    assert [code for code, *_ in found(recipe)] == ["file-missing"]
