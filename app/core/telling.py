"""What an error says to those who call the service: never where the store is."""

from __future__ import annotations

import logging
import re

from backends.errors import BackendError, CollectionExists, CollectionNotFound
from backends.redaction import redact

log = logging.getLogger(__name__)

# How every engine writes a collection's name, and what may be an address, or a path of this machine.
_NAMED = re.compile(r"collection ('[^']*'|\"[^\"]*\")")
_PLACE = re.compile(
    r"[A-Za-z][\w+.-]*://[^\s'\",;]*[^\s'\",;:.)]|(?<![\w.~])(?:~|\.{1,2})?/(?!/)[^\s'\",;]*[^\s'\",;:.)]"
)


def told_to_callers(error: Exception) -> str:
    """What an error of ours says to whoever may call; where the store is, is for the log only.

    All that leaves the service goes through here: problem documents, OpenAI's errors, those of the
    protocol's tools, events, and what is kept of a job. Of a store's errors no text is trusted that could
    hold its folder, address or driver's words: of a collection its name is told, and nothing else.
    """
    text = str(error)
    if isinstance(error, (CollectionNotFound, CollectionExists)):
        named = _NAMED.search(text)
        name = f" {named[1]}" if named else ""
        text = f"there is a collection{name} already"
        if isinstance(error, CollectionNotFound):
            text = f"there is no collection{name}" if name else "the collection is not there any more"
    elif isinstance(error, BackendError):
        text = without_places(text)
    if text != str(error):
        log.info("%s: %s", type(error).__name__, error)
    return redact(text)


def without_places(text: str, *, but: str = "") -> str:
    """`text` without addresses and paths, `but` for one that its reader gave."""
    return _PLACE.sub(lambda found: found[0] if but and found[0].startswith(but) else "the store", text)


def of_the_store(error: Exception) -> BackendError | None:
    """What the store said, where that is why something else failed."""
    cause = error if isinstance(error, BackendError) else error.__cause__
    return cause if isinstance(cause, BackendError) else None
