"""The `model.data` section."""

from typing import Any

from neva_recipes.nemo._trainer_keys import validates
from neva_recipes.nemo.rules import (
    Configuration,
    Decision,
    Outcome,
    Rule,
    cannot,
    carried,
    carries,
    decides,
    harmless,
    holds,
    integer,
    leaves,
    left,
    one_of,
    same,
    text,
)

__all__ = ["DATA_RULES"]

_TEMPLATES = {
    "plain": "plain",
    "v1": "v1",
    "llama_2": "llava_llama_2",
    "mistral": "mistral_instruct",
    "nvgpt": "nvgpt",
    "nv_steerlm": "nvgpt",
    "nv_dpo": "nv_dpo",
    "yi_34b": "yi_34b",
    "llama_3": "llama_3",
}
"""Names of the conversation templates in NeMo, and their names here."""


def _data_path(value: object, nemo: Configuration) -> Outcome:
    named = [text(path) for path in value] if isinstance(value, list) else [] if value is None else [text(value)]
    if not named:
        return same("none: set data.data_path")
    files = named[0] if len(named) == 1 else named
    if not validates(nemo):
        return carried({"data.data_path": files})
    why = "NeMo's NeVA validates on what it trains on: better name other data, or none"
    return carried({"data.data_path": files}, assumed={"data.validation_data_path": (files, why)})


def _image_folder(value: object, _: Configuration) -> Outcome:
    if value is None:
        return same("the folder of the data file")
    if text(value).endswith(".tar"):
        return cannot("images are read from a folder: unpack the archive and set data.image_folder")
    return carried({"data.image_folder": value})


def _template(value: Any, _: Configuration) -> Outcome:
    template = one_of(value, _TEMPLATES)
    if template is None:
        return cannot(f"templates are {', '.join(dict.fromkeys(_TEMPLATES.values()))}; v1 is in the recipe")
    return carried({"data.conv_template": template})


def _aspect(value: object, _: Configuration) -> Outcome:
    if value not in ("square", "pad"):
        return cannot("images are cropped to a square (square) or padded to one (pad)")
    return carried({"data.image_aspect_ratio": value})


def _repeated(key: str) -> Decision:
    def decide(value: object, nemo: Configuration) -> Outcome:
        return same(f"{key} says it") if value in (None, nemo.get(key)) else left(f"{key} counts")

    return decide


def _energon(value: object, _: Configuration) -> Outcome:
    return cannot("data is LLaVA's JSON with a folder of images: set data.data_path") if value else same("off")


DATA_RULES: tuple[Rule, ...] = (
    decides(
        "model.data.data_path",
        "`data.data_path`",
        "also `data.validation_data_path`: NeMo's NeVA validates on what it trains on",
        _data_path,
    ),
    decides("model.data.image_folder", "`data.image_folder`", "a folder, not a .tar", _image_folder),
    decides(
        "model.data.conv_template",
        "`data.conv_template`",
        "see the table of templates",
        _template,
        absent="nvgpt",
    ),
    decides("model.data.image_aspect_ratio", "`data.image_aspect_ratio`", "square, pad", _aspect),
    carries("model.data.num_workers", "data.num_workers", integer),
    carries("model.data.dataloader_type", "data.dataloader_type", text),
    holds("model.data.is_multimodal", True, otherwise="a text-only model has no vision tower: nemo-run gpt.pretrain"),
    holds("model.data.media_type", "image", otherwise="there is no video"),
    holds("model.data.sep_image_conv_front", False, otherwise="the image stands in its turn"),
    holds("model.data.packed_sequence", False, otherwise="samples are not packed: name the original file"),
    holds("model.data.eod_mask_loss", False, otherwise="the token that ends an answer carries loss"),
    leaves("model.data.concat_sampling_probabilities", otherwise="an epoch takes each sample of every file once"),
    leaves("model.data.validation_drop_last", True, otherwise="every validation sample counts once"),
    harmless("model.data.lazy_preprocess", "samples are read one at a time"),
    decides(
        "model.data.micro_batch_size",
        "left out",
        "model.micro_batch_size counts",
        _repeated("model.micro_batch_size"),
    ),
    decides(
        "model.data.global_batch_size",
        "left out",
        "model.global_batch_size counts",
        _repeated("model.global_batch_size"),
    ),
    *(
        harmless(f"model.data.{key}", "for video only")
        for key in (
            *("num_frames", "video_folder", "sep_token_between_frames", "splice_single_frame"),
            *("use_first_frame_only", "use_middle_frame_only", "use_last_frame_only"),
        )
    ),
    *(
        decides(f"{place}energon.use_energon", "always `False`", "LLaVA's JSON only", _energon)
        for place in ("", "model.")
    ),
    harmless("energon.*", "with use_energon"),
    harmless("model.energon.*", "with use_energon"),
)
"""Rules for the keys on data."""
