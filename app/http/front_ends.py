"""What chat front ends write into a user's message beside the user's words, as Open WebUI does."""

from __future__ import annotations

import re
from collections.abc import Sequence

# The names, sizes and ids of files, which stand in the message besides: searched for, they hide what was asked.
_ATTACHED, _ATTACHED_END = "<attached_files>", "</attached_files>"
_TASK = re.compile(r"\s*### Task:\s")
_HISTORY = "<chat_history>"
_CUT = "\n…\n"


def asked_words(text: str) -> str:
    """What the user wrote: the text without a front end's list of attached files."""
    if _ATTACHED not in text:
        return text
    # Without a pattern, which would look at a long text again from each of its places: this one has any length.
    *closed, last = text.split(_ATTACHED_END)
    kept = [
        before if begin else before + _ATTACHED_END for before, begin, _ in (c.partition(_ATTACHED) for c in closed)
    ]
    return " ".join(part for part in map(str.strip, [*kept, last]) if part)


def task(messages: Sequence[str], most: int) -> str | None:
    """A front end's task for the model itself, such as a title for the talk in it; None for a question.

    It is the only message, begins as such tasks do, and holds the talk. One that is longer than `most` characters loses
    the middle, which is of the talk: what to do stands before it, its last words behind.
    """
    if len(messages) != 1 or not _TASK.match(messages[0]) or _HISTORY not in messages[0]:
        return None
    text = messages[0].strip()
    if len(text) <= most:
        return text
    behind = most // 4
    return text[: most - behind - len(_CUT)] + _CUT + text[-behind:]
