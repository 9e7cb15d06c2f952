"""The encoders of one running service: the one that it began with, and those of collections that were given others."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from retrieval.encoders.base import Encoder, EncoderError
from retrieval.encoders.batching import BatchedEncoder
from retrieval.encoders.text_side import has_earlier_texts

log = logging.getLogger(__name__)

#: Says how the encoder of a fingerprint is loaded, which raises `EncoderError`; None where nobody knows.
LoadEncoder: TypeAlias = Callable[[str], Callable[[], Encoder] | None]
#: Makes an encoder share its batches among requests.
Batching: TypeAlias = Callable[[Encoder], BatchedEncoder]
#: An encoder that could not be loaded is tried again after so long: its download may have been what failed.
RETRY_S = 600.0


class Encoders:
    """Encoders by what a collection says it was filled by; each is loaded once, when a collection needs it."""

    def __init__(self, first: Encoder, batching: Batching, load: LoadEncoder | None = None) -> None:
        self._batching, self._load = batching, load
        self._kept = [batching(first)]
        self._refused_until: dict[str, float] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def first(self) -> BatchedEncoder:
        """The one that the service began with: it fills new collections."""
        return self._kept[0]

    @property
    def waiting(self) -> int:
        """Texts that wait to be encoded, by any."""
        return sum(encoder.waiting for encoder in self._kept)

    def kept(self, stored: str) -> BatchedEncoder | None:
        """The encoder of a collection's fingerprint, if it is loaded."""
        fits = (each for each in self._kept if each.fingerprint == stored or has_earlier_texts(stored, each))
        return next(fits, None)

    def of(self, stored: str) -> BatchedEncoder:
        """The encoder of a collection's fingerprint, loaded now if need be; the first one where it cannot be had."""
        if self.kept(stored) is None and self._how(stored) is not None:
            with self._loading:
                # Another request may have been waiting for the same one.
                if self.kept(stored) is None and (load := self._how(stored)) is not None:
                    self._keep(stored, load)
        return self.kept(stored) or self.first

    def may_have(self, stored: str) -> bool:
        """Whether the encoder of a collection's fingerprint is loaded, or known."""
        return self.kept(stored) is not None or self._how(stored) is not None

    def begin(self, stored: str) -> bool:
        """Load it in a thread, so that nobody waits; whether it may be had later."""
        if self._how(stored) is None:
            return False
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self.of, args=(stored,), name="load encoder", daemon=True)
                self._thread.start()
        return True

    def _how(self, stored: str) -> Callable[[], Encoder] | None:
        if self._load is None or time.monotonic() < self._refused_until.get(stored, -math.inf):
            return None
        return self._load(stored)

    def _keep(self, stored: str, load: Callable[[], Encoder]) -> None:
        try:
            loaded = load()
        except Exception as error:
            # Whatever it is: else every search would load it once more.
            told = error if isinstance(error, EncoderError) else f"{type(error).__name__}: {error}"
            log.warning("the encoder %s of a collection cannot be loaded: %s", stored, told)
            self._refused_until[stored] = time.monotonic() + RETRY_S
            return
        if loaded.fingerprint == stored or has_earlier_texts(stored, loaded):
            self._kept.append(self._batching(loaded))
        else:
            # What is called so now is another model.
            self._refused_until[stored] = math.inf

    def close(self) -> None:
        """End their threads."""
        for encoder in self._kept:
            encoder.close()
