"""What the classes of an audit and other things look like, in words, and what these mean to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipaudit.clip.texts import TextSide
from clipaudit.errors import ModelError
from clipaudit.prompts.nouns import everyday_nouns, noun_text
from clipaudit.prompts.sets import ClassPrompts, PromptSet, class_prompts


@dataclass(frozen=True)
class Words:
    """Words and their embeddings.

    Attributes:
        prompts: P prompts of the classes.
        texts: (P, d) float32 unit rows, their embeddings.
        names: W nouns that mean none of the classes; none where they could not be embedded.
        nouns: (W, d) float32 unit rows, their embeddings.
        warnings: Why there are none.
    """

    prompts: ClassPrompts
    texts: NDArray[np.float32]
    names: Sequence[str]
    nouns: NDArray[np.float32]
    warnings: Sequence[str] = ()


def words_given(class_names: Sequence[str], embeddings: NDArray[np.float32]) -> Words:
    """Those of an audit whose caller knows what the classes look like: (K, d) unit rows, one a class."""
    described = ClassPrompts(tuple(class_names), tuple(range(len(class_names))), "class embeddings", ())
    warning = "which images show none of the classes is not known, as class embeddings know no other words"
    return Words(described, embeddings, (), embeddings[:0], [warning])


def no_words(dimension: int, why: str, judges: str) -> Words:
    """Those of an audit in which zero-shot does not speak.

    Args:
        dimension: Of the embeddings.
        why: As part of a sentence.
        judges: The estimates that do, in words.
    """
    none = np.zeros((0, dimension), np.float32)
    warning = (
        f"zero-shot does not speak ({why}): only {judges} decides, which learns from the labels that it judges, and"
        " which images show none of the classes is not known"
    )
    return Words(ClassPrompts((), (), "none", ()), none, (), none, [warning])


def words_of(class_names: Sequence[str], prompts: PromptSet | None, texts: TextSide) -> Words:
    """The words of an audit of these classes; `prompts` None takes plain templates.

    Raises:
        ModelError, CacheError: the prompts cannot be embedded. Nouns that cannot be are a warning.
    """
    described = class_prompts(class_names, prompts)
    of_classes, every = texts.embed(described.texts), everyday_nouns([])
    try:
        # All of them, whatever the classes, so that the next audit finds them.
        embedded = texts.embed([noun_text(noun) for noun in every])
    except ModelError as error:
        warning = f"which images show none of the classes is not known, as no noun was embedded: {error}"
        return Words(described, of_classes, (), of_classes[:0], [warning])
    names = everyday_nouns(prompts.spellings(class_names) if prompts else class_names)
    return Words(described, of_classes, names, embedded[np.isin(every, names)])
