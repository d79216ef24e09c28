"""A clone made without Git LFS: each file that is only a pointer is told as one, by the plan and by the worker."""

import pytest

from neva_model.data.images.reading import read_image
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import UserError
from neva_recipes.plan.huggingface import read_object
from neva_recipes.plan.huggingface.tensors import read_tensors
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.sources.records import scan_samples

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("model.safetensors", lambda file: read_tensors(file.parent)),
        ("pytorch_model.bin", lambda file: read_tensors(file.parent)),
        ("mm_projector.bin", lambda file: read_tensors(file.parent)),
        ("model.safetensors.index.json", lambda file: read_tensors(file.parent)),
        ("config.json", lambda file: read_object(file, "a configuration")),
        ("tokenizer.json", lambda file: read_tokenizer(file.parent)),
        ("tokenizer.model", lambda file: read_tokenizer(file)),
        ("tokenizer.model", lambda file: load_tokenizer(str(file), vocab_size=None)),
        ("data.json", lambda file: list(scan_samples(file))),
        ("data.jsonl.gz", lambda file: list(scan_samples(file))),
        ("a.png", read_image),
    ],
)
def test_a_pointer_is_told(name, read, tmp_path):
    file = tmp_path / name
    file.write_text(POINTER)
    with pytest.raises(UserError) as caught:
        read(file)
    said = str(caught.value)
    assert str(file) in said and said.endswith(" is a Git LFS pointer: git lfs pull fetches the file")
