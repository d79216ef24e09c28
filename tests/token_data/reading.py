"""Indexed datasets as Megatron writes and reads them."""

import sentencepiece
import tokenizers
import torch
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder


def ids_of(tokenizer, texts, end=()):
    """Return the ids that a tokenizer's own library gives texts, each as one document."""
    if tokenizer.is_dir():
        backend = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        return [[*backend.encode(text, add_special_tokens=False).ids, *end] for text in texts]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    return [[*processor.encode(text), *end] for text in texts]


def megatron_files(folder, documents, vocab_size):
    """Return the .bin and the .idx that Megatron's builder writes for documents."""
    folder.mkdir()
    builder = IndexedDatasetBuilder(str(folder / "a.bin"), dtype=DType.optimal_dtype(vocab_size))
    for ids in documents:
        builder.add_document(torch.tensor(ids), [len(ids)])
    builder.finalize(str(folder / "a.idx"))
    return (folder / "a.bin").read_bytes(), (folder / "a.idx").read_bytes()


def files_of(folder, part="train"):
    """Return the .bin and the .idx of a part."""
    return (folder / f"{part}.bin").read_bytes(), (folder / f"{part}.idx").read_bytes()


def whole(folder):
    """Return the content of every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def documents_of(folder, part="train"):
    """Return the documents of a part, as Megatron reads them."""
    if not (folder / f"{part}.idx").exists():
        return []
    data = IndexedDataset(str(folder / part))
    assert data.document_indices.tolist() == list(range(len(data) + 1))
    return [data[number].tolist() for number in range(len(data))]
