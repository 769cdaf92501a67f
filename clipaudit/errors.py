"""Everything that can go wrong because of the user's data, files or machine: one family, said in the user's words."""

from __future__ import annotations


class ClipAuditError(Exception):
    """A fault that its message explains: what was wrong, where (file and row), what to do. Exit code 1.

    A message is one line. Further arguments are lines to list below it; a line break inside any of them comes from
    foreign text (a file's name, say) and is shown as an escape.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(ClipAuditError):
    """The call itself is wrong: an unknown name, options that exclude each other. Exit code 2."""

    exit_code = 2


class SourceError(ClipAuditError):
    """Images or labels that cannot be used as they are: no classes, a bad row, a duplicate path."""


class ImageError(ClipAuditError):
    """One image that cannot be read. Its message is the sample's `reason`; the run goes on without it."""


class ModelError(ClipAuditError):
    """A model folder or hub id that cannot be loaded, or that is no dual encoder."""


class CacheError(ClipAuditError):
    """An embeddings cache that is missing, incomplete, damaged, full or made by another model."""


class PromptError(ClipAuditError):
    """A prompt file that is malformed, or a prompt that the text encoder would have to cut."""


class IndexFileError(ClipAuditError):
    """A clean index that is missing, damaged or not one of ours."""


class RunError(ClipAuditError):
    """A run folder that is damaged or of another configuration, or a training that diverged."""


class StoppedError(ClipAuditError):
    """Ctrl-C was pressed before a command began. Exit code 130, as shells have it."""

    exit_code = 130
