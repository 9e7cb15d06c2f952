"""Which files of a folder are left out: litter, and what people name, in the patterns of gitignore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from indexers.files import Unreadable, decode_text, read_bounded
from indexers.litter import litter
from indexers.report import IndexingError

IGNORE_NAME = ".sightlineignore"
MAX_IGNORE_BYTES = 64 * 1024
#: What a report calls files that people left out themselves.
EXCLUDED = "excluded files"


@dataclass(frozen=True, slots=True)
class Rules:
    """What is left out below one folder of a source.

    Of all that says something of a path the last word has what was given with the command, `include` before `exclude`;
    then the `.sightlineignore` of the innermost folder; then the names that are litter.
    """

    given: GitIgnoreSpec | None = None
    folders: tuple[tuple[str, GitIgnoreSpec], ...] = field(default=())

    def below(self, root: Path, folder: str) -> Rules:
        """The rules in `folder` under `root`, with those of its own file. Raises `Unreadable`."""
        try:
            data, _ = read_bounded(root / folder / IGNORE_NAME, MAX_IGNORE_BYTES)
            spec = GitIgnoreSpec.from_lines(decode_text(data).split("\n"))
        except Unreadable as error:
            if str(error) in ("no such file", "is empty"):
                return self
            raise Unreadable(f"its {IGNORE_NAME} {error}") from None
        except ValueError as error:
            raise Unreadable(f"its {IGNORE_NAME} has a line that is no pattern: {error}") from None
        return Rules(self.given, ((f"{folder}/" if folder else "", spec), *self.folders))

    def why_left_out(self, path: str, name: str, *, is_folder: bool) -> str | None:
        """What `path` is, in the plural, if it is left out; None if it is not."""
        if self.given is not None or self.folders:
            whole = f"{path}/" if is_folder else path
            for prefix, spec in (("", self.given), *self.folders):
                said = spec.check_file(whole[len(prefix) :]).include if spec is not None else None
                if said is not None:
                    return EXCLUDED if said else None
        return litter(name)


def rules_of(exclude: Sequence[str], include: Sequence[str]) -> Rules:
    """The rules of a whole source. Raises `IndexingError` for what is no pattern."""
    if not exclude and not include:
        return Rules()
    try:
        return Rules(GitIgnoreSpec.from_lines([*exclude, *(f"!{pattern}" for pattern in include)]))
    except ValueError as error:
        raise IndexingError(f"--exclude and --include take patterns as .gitignore has them: {error}") from None
