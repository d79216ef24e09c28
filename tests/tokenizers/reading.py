"""Tokenizers as the libraries read them."""

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer


def proto(path):
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def library(path):
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def transformers_ids(folder, lines):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer.encode(line, add_special_tokens=False) for line in lines]
