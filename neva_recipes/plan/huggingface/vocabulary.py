"""The vocabulary sizes possible for a model that starts from the embedding of a Hugging Face directory."""

from dataclasses import dataclass

from neva_recipes.plan.huggingface.configuration import Configuration

__all__ = ["VocabularyRows", "vocabulary_rows"]


@dataclass(frozen=True)
class VocabularyRows:
    """The rows of a directory's embedding.

    Attributes:
        rows: All rows.
        text: The rows of words. The rows after them only serve transformers: the image token, the padding token, and
            rows that pad the matrix.
    """

    rows: int
    text: int

    def takes(self, vocab_size: int, tokens: int | None, *, use_im_start_end: bool = False) -> bool:
        """Return whether a recipe's vocabulary can start from these rows.

        It may leave out the rows that only serve transformers, and it may have more rows if each has a token.

        Args:
            vocab_size: Vocabulary size of the recipe.
            tokens: Tokens of its tokenizer; `None` if unknown.
            use_im_start_end: Whether two of them mark the borders of images.
        """
        if vocab_size <= self.rows:
            return vocab_size >= self.text
        return vocab_size <= (self.rows + 2 * use_im_start_end if tokens is None else tokens)

    def nearest(self, tokens: int | None, *, use_im_start_end: bool = False) -> int:
        """Return the smallest vocabulary that holds every token and can start from these rows."""
        if tokens is None:
            return self.rows + 2 * use_im_start_end
        return max(self.text, tokens)


def vocabulary_rows(configuration: Configuration) -> VocabularyRows | None:
    """Return the rows of a directory's embedding; `None` if it has no language model."""
    if configuration.language is None:
        return None
    rows = configuration.language.vocab_size
    image = configuration.image_token_index
    return VocabularyRows(rows, rows if image is None else min(image, rows))
