"""Whoever uses an exported chat template, and however, gets the tokens of the training."""

import pytest
from exported_tokenizers import KINDS, write_tokenizer
from model_cases import TOKENS_PER_IMAGE, llava_recipe
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from neva_model.checkpoints.huggingface.processor import load_export_tokenizer, write_processor
from neva_model.data import Turn, encode_prompt, get_template
from neva_model.tokenizers import load_tokenizer
from neva_recipes.prompts.templates import TEMPLATES, Slot

PICTURE = Image.new("RGB", (28, 28), "blue")

# Question, answer, question, ...; the first question of some is about an image.
TALKS = {
    "image": (True, ["which colour is it?"]),
    "image, three turns": (True, ["Q1", "A1", "what is two and two?"]),
    "image without words": (True, [""]),
    "image, own system text": (True, ["Q1", "A1", "Q2"], "it is a digit."),
    "words, own system text": (False, ["what is five"], " be even\n"),
    "words": (False, ["what is five"]),
    "image, tokens of one's own": (True, ["<gauge>four is it <gauge> five", "<gauge>", "</gauge><gauge>"]),
    "tokens of one's own": (False, ["what is it<gauge>four"]),
    "words, five turns": (False, ["Q1", "A1", "Q2 [INST]", "it is odd.\nAnd even", " the number"]),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Return a function that gives the processor of an export and the tokenizer of its training."""
    made = {}

    def export(kind, template, *, borders=False):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
            write_tokenizer(kind, made[kind])
        key = (kind, template, borders)
        if key not in made:
            changes = {"data.conv_template": template, "model.use_im_start_end": borders}
            recipe = llava_recipe({"model.language.vocab_size": 2000, **changes})
            folder = tmp_path_factory.mktemp("export")
            write_processor(recipe, load_export_tokenizer(recipe, str(made[kind])), folder)
            made[key] = AutoProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        trained = load_tokenizer(str(made[kind]), vocab_size=None, use_im_start_end=borders)
        return *made[key], trained

    return export


def chat_of(has_image, texts, system=None):
    """Return a talk as transformers takes it."""
    chat = [] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}]
    for number, text in enumerate(texts):
        content = [{"type": "text", "text": text}] if text else []
        if number == 0 and has_image:
            content.insert(0, {"type": "image", "image": PICTURE})
        chat.append({"role": "assistant" if number % 2 else "user", "content": content})
    return chat


def trained_ids(talk, template, tokenizer, image_id):
    has_image, texts, *system = talk
    turns = [
        Turn("gpt" if number % 2 else "human", text, image=has_image and number == 0)
        for number, text in enumerate(texts)
    ]
    own = {"system": system[0]} if system else {}
    prompt = encode_prompt(turns, get_template(template), tokenizer, tokens_per_image=TOKENS_PER_IMAGE, **own)
    return [image_id if token == -200 else token for token in prompt.tokens]


def unpadded(batch):
    return [
        [token for token, seen in zip(ids, mask, strict=True) if seen]
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def talks_for(kind, template):
    """Return the talks that a template takes, and of which transformers can make the tokens of the training."""
    if template == "plain":
        return ["image", "image without words"]
    # A SentencePiece tokenizer of old adds a space after every special token, and none is wanted after these images.
    wants_none = not (TEMPLATES[template].image_parts_text or TEMPLATES[template].image_is_token)
    spaced = kind == "sentencepiece of old" and wants_none
    names = [name for name in TALKS if TEMPLATES[template].takes_system or len(TALKS[name]) == 2]
    # Nor is one before an answer that begins with a token of one's own, where answers are encoded apart.
    apart = kind == "sentencepiece of old" and Slot.START in TEMPLATES[template].answer
    names = [name for name in names if not (apart and name == "image, tokens of one's own")]
    return [name for name in names if not (spaced and TALKS[name][0])]


CASES = [(kind, template) for kind in KINDS for template in TEMPLATES]


@pytest.mark.parametrize("borders", [False, True])
@pytest.mark.parametrize(("kind", "template"), CASES)
def test_ids_are_those_of_the_training(kind, template, borders, exports):
    processor, tokenizer, trained = exports(kind, template, borders=borders)
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    names = talks_for(kind, template)
    chats = [chat_of(*TALKS[name]) for name in names]
    expected = [trained_ids(TALKS[name], template, trained, image_id) for name in names]

    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    for name, chat, text, ids in zip(names, chats, texts, expected, strict=True):
        one = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert unpadded(one) == [ids], name
        images = [PICTURE] if TALKS[name][0] else None
        assert unpadded(processor(text=[text], images=images)) == [ids], name
        if not TALKS[name][0]:
            assert tokenizer(text).input_ids == ids
            assert tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"] == ids
    several = processor.apply_chat_template(
        chats, add_generation_prompt=True, tokenize=True, return_dict=True, padding=True
    )
    assert unpadded(several) == expected
    if not any(TALKS[name][0] for name in names):
        return
    shown = [number for number, name in enumerate(names) if TALKS[name][0]]
    both = processor(text=[texts[number] for number in shown], images=[[PICTURE] for _ in shown], padding=True)
    assert unpadded(both) == [expected[number] for number in shown]
