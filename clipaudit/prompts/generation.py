"""Features for a prompt file from a language model: one class at a time, checked, asked again where they do not do.

generate_prompts("photos", Path("photos.toml"), Endpoint("http://localhost:8000/v1", "qwen3"))
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipaudit.errors import ModelError, PromptError, UsageError
from clipaudit.files import check_output
from clipaudit.options.arguments import typed
from clipaudit.prompts.answers import parse_features
from clipaudit.prompts.check import MAX_FEATURES, MIN_FEATURES
from clipaudit.prompts.language_models import LanguageModel, Message, NoAnswerError
from clipaudit.prompts.sets import PromptClass, PromptSet, fill, load_prompts, parse_prompts, read_prompt_text
from clipaudit.prompts.writing import empty_file, is_there, source_classes, with_features, with_labels, write_prompts
from clipaudit.remote import to_path
from clipaudit.samples import SourceOptions

ATTEMPTS = 5
# A server that asks for a longer pause is asked again sooner, and the run ends where it still refuses.
LONGEST_PAUSE = 120.0

SYSTEM = (
    "You describe what classes of images look like, for a model that compares photographs with sentences."
    " You answer with a JSON list of strings and nothing else."
)
INSTRUCTION = """\
Write {n} short visual features of the class {name}.

Each feature completes the sentence "{sentence}", so it starts with a verb in the present tense, such as "has", "is", \
"shows" or "stands" ("have", "are" for a name in the plural).
Only what a photograph can show: colour, shape, parts, texture, pose, surroundings. \
No taxonomy, lifespan, sound, smell or use.
At most 10 words each, in lower case, without a full stop, no two alike.
The other classes of the data set are: {others}.
Write above all what tells {name} apart from those of them that look most like it.

Answer with a JSON list of {n} strings."""


@dataclass(frozen=True)
class ClassOutcome:
    """What became of one class: its features, or the fault of the last answer."""

    name: str
    features: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class GenerationSummary:
    """What a run did.

    Attributes:
        path: The prompt file.
        written: Classes that got features now.
        kept: Classes of the source that had features before; they were not touched.
        failed: Classes that are still without, each with the reason; the same call tries them again.
    """

    path: Path
    written: tuple[ClassOutcome, ...]
    kept: tuple[str, ...]
    failed: tuple[ClassOutcome, ...]


@dataclass(frozen=True)
class GenerationProgress:
    """Where a run stands.

    Attributes:
        question: What is being sent for the next class; empty at the end.
        name: Of that class; empty at the end.
        done: Classes that were asked for.
        total: Classes to ask for.
        last: How the class before ended.
    """

    question: Sequence[Message]
    name: str
    done: int
    total: int
    last: ClassOutcome | None


@typed
def generate_prompts(
    source: str | Path,
    out: str | Path,
    model: LanguageModel,
    *,
    n_features: int = 8,
    options: SourceOptions | None = None,
    pause: float = 1.0,
    progress: Callable[[GenerationProgress], None] | None = None,
) -> GenerationSummary:
    """Ask a language model for the features of every class of a source that has none yet.

    The file is written after every class, whole or not at all, so that an interrupted run resumes when it is called
    again. Classes that have features, and everything else in the file, stay as they are.

    Args:
        source: Labelled images, in any form that `open_source` reads.
        out: The prompt file: a new one, or one from `new_prompts`, an earlier run or a person.
        model: Language model that answers the questions.
        n_features: Number of features to ask for per class, 6 to 10; an answer with at least 6 good ones is taken.
        options: How to read the source.
        pause: Seconds before a server is asked again, doubled each time, unless it says how long.
        progress: Called before each class and at the end (then with an empty name).

    Raises:
        ModelError: the model refuses or gives no answer at all; what was written stays.
        PromptError: the file cannot be read or added to.
        SourceError, UsageError: the source cannot be read, or `n_features` is out of range.
    """
    out = to_path(out)
    _refuse_count(n_features)
    check_output(out, [source])
    text, prompts, wanted = _plan(source, out, options)
    write_prompts(out, text, prompts)
    names, todo = [entry.name for entry in wanted], [entry for entry in wanted if not entry.features]
    outcomes: list[ClassOutcome] = []
    report = progress or (lambda _: None)
    last: ClassOutcome | None = None
    for entry in todo:
        question = instruction(entry.name, names, prompts.template, n_features)
        report(GenerationProgress(question, entry.name, len(outcomes), len(todo), last))
        last = _ask(model, question, load_prompts(out), entry, pause)
        if last.features:
            _put(out, last)
        outcomes.append(last)
    report(GenerationProgress((), "", len(outcomes), len(todo), last))
    return GenerationSummary(
        out,
        tuple(outcome for outcome in outcomes if outcome.features),
        tuple(entry.name for entry in wanted if entry.features),
        tuple(outcome for outcome in outcomes if not outcome.features),
    )


def first_instruction(
    source: str | Path, out: Path, *, n_features: int = 8, options: SourceOptions | None = None
) -> list[Message]:
    """What `generate_prompts` would send first, without sending or writing anything; empty where nothing is to do.

    Raises:
        PromptError, SourceError, UsageError: as `generate_prompts`.
    """
    _refuse_count(n_features)
    _, prompts, wanted = _plan(source, out, options)
    for entry in wanted:
        if not entry.features:
            return instruction(entry.name, [other.name for other in wanted], prompts.template, n_features)
    return []


def instruction(name: str, others: Sequence[str], template: str, n_features: int) -> list[Message]:
    """What a language model is told for one class.

    Args:
        name: Of the class.
        others: Names of all classes it must be told apart from.
        template: Of the prompt set.
        n_features: To ask for.
    """
    # Names come from folders: quoted, they are data and not part of the instruction.
    quoted = json.dumps(name, ensure_ascii=False)
    content = INSTRUCTION.format(
        n=n_features,
        name=quoted,
        sentence=fill(template, name, "___"),
        others=", ".join(json.dumps(other, ensure_ascii=False) for other in others if other != name) or "none",
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def _refuse_count(n_features: int) -> None:
    if not MIN_FEATURES <= n_features <= MAX_FEATURES:
        raise UsageError(f"ask for {MIN_FEATURES} to {MAX_FEATURES} features a class, not {n_features}.")


def _plan(source: str | Path, out: Path, options: SourceOptions | None) -> tuple[str, PromptSet, list[PromptClass]]:
    """The text of the prompt file with every class of the source, the set it holds, and the source's classes in it."""
    labels = source_classes(source, options)
    if is_there(out):
        text = read_prompt_text(out)
        prompts = parse_prompts(text, out)
    else:
        text, prompts = empty_file(source, out)
    text, prompts = with_labels(text, prompts, labels)
    return text, prompts, list(dict.fromkeys(entry for entry in prompts.match(labels) if entry))


def _put(path: Path, outcome: ClassOutcome) -> None:
    text = read_prompt_text(path)
    prompts = parse_prompts(text, path)
    # The file may have been edited while the model was thinking.
    if any(entry.name == outcome.name and not entry.features for entry in prompts.classes):
        write_prompts(path, *with_features(text, prompts, outcome.name, outcome.features))


def _ask(
    model: LanguageModel, question: Sequence[Message], prompts: PromptSet, entry: PromptClass, pause: float
) -> ClassOutcome:
    messages, fault = question, ""
    for attempt in range(ATTEMPTS):
        try:
            answer = model.answer(messages)
        except NoAnswerError as error:
            if attempt + 1 == ATTEMPTS:
                raise ModelError(
                    f"asked for {entry.name!r} {ATTEMPTS} times: {error}. What was generated before is kept; the same"
                    " command goes on from there."
                ) from None
            wanted = pause * 2**attempt if error.retry_after is None else error.retry_after
            time.sleep(min(wanted, LONGEST_PAUSE))
            continue
        try:
            return ClassOutcome(entry.name, parse_features(answer, prompts, entry))
        except PromptError as error:
            fault = str(error)
            messages = [*question, *_correction(answer, fault)]
    return ClassOutcome(entry.name, fault=fault or "no answer")


def _correction(answer: str, fault: str) -> list[Message]:
    # Only the last answer, and cut: a model that rambles would otherwise outgrow what it can read.
    said = answer[:2000].strip() or "(nothing)"
    return [
        {"role": "assistant", "content": said},
        {"role": "user", "content": f"That cannot be used: {fault}. Answer again, with the whole JSON list only."},
    ]
