"""Hugging Face directories whose tensors are those of transformers' own models, made of nothing but headers."""

import functools
import json
import math
import struct

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM, LlavaConfig
from transformers import LlavaForConditionalGeneration as Llava

CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "clip_vision_model": (CLIPVisionConfig, CLIPVisionModel),
    "llava": (LlavaConfig, Llava),
}


@functools.cache
def _shapes(config):
    fields = json.loads(config)
    kind, model = CLASSES[fields["model_type"]]
    with torch.device("meta"):
        tensors = model(kind.from_dict(fields)).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def shapes_of(fields):
    """Return the shapes of the tensors of transformers' model of a configuration, by name."""
    return dict(_shapes(json.dumps(fields, sort_keys=True)))


def write_safetensors(path, shapes):
    """Write a file of half-precision zeros, a hole on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    content = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        file.truncate(8 + len(content) + end)


def write_model(folder, fields):
    """Write a directory of a configuration's model."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    write_safetensors(folder / "model.safetensors", shapes_of(fields))
