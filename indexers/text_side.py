"""Encoding a collection's texts anew when its encoder has a new text side: its images stay as they are.

The texts are the stored records' own, so no source is needed. The collection gets the new fingerprint only when all
are done: a run that was interrupted in whatever way is repeated from the start, which gives the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable

from backends.base import Backend, Compare, Record
from backends.checks import payload
from indexers.embedding import Embedder, IsStopped
from indexers.planner import Batch
from indexers.report import IndexingError, Quarantined
from indexers.tally import Tally, Work
from retrieval.encoders.base import Encoder

SCANNED = 256
#: What progress calls it.
STAGE = "encoding texts anew"
_NOT_DONE = "{} of its stored texts keep their earlier vectors, as the encoder failed on them: the next run tries again"


def encode_texts_anew(
    backend: Backend,
    encoder: Encoder,
    collection: str,
    tally: Tally,
    *,
    tell: Callable[[int, int], None],
    stopped: IsStopped,
) -> bool:
    """Give every stored text the encoder's own vector, then the collection its fingerprint; False if stopped before.

    A text on which the encoder fails keeps its vector and is quarantined, and the collection its fingerprint, so that
    the next run tries again; the report says so. tell: called with done and total.

    Raises:
        IndexingError: meanwhile another process gave the collection another encoder.
        BackendError: the engine's own.
    """
    before = backend.describe(collection).encoder
    total = backend.count(collection, Compare("modality", "eq", "text"))
    embedder, done, failed = Embedder(encoder, tally), 0, 0
    for page in backend.scan(collection, with_vectors=False, batch=SCANNED):
        tell(done, total)
        texts = [record for record in page.records if record.modality == "text"]
        batch = Batch(
            texts=[(_work(record), record, embedded_text(record)) for record in texts if record.text is not None]
        )
        encoded, whole = embedder.embed(batch, stopped)
        tally.count("reencoded", _store(backend, collection, [record for _, record in encoded]))
        failed += sum(work.failed for work, _, _ in batch.texts)
        done += len(texts)
        if not whole or stopped():
            return False
    tell(done, max(done, total))
    now = backend.describe(collection).encoder
    if now not in (before, encoder.fingerprint):
        raise IndexingError(
            f"collection {collection!r} was given the encoder {now!r} by another process while its texts were encoded "
            "anew: run this again"
        )
    if failed:
        tally.quarantined.append(Quarantined(collection, _NOT_DONE.format(failed)))
    else:
        backend.set_encoder(collection, encoder.fingerprint)
    return True


def embedded_text(record: Record) -> str:
    """What the encoder is given for a stored text: of a document's passage its headings as well."""
    heading = record.metadata.get("heading")
    is_passage = heading is not None and "passage" in record.metadata
    return f"{heading}\n{record.text}" if is_passage else record.text or ""


def _work(record: Record) -> Work:
    return Work(str(record.metadata.get("path", record.id)), "updated", 1)


def _store(backend: Backend, collection: str, records: list[Record]) -> int:
    """Store the records that are still there as they were read: what was changed or deleted meanwhile stays so.

    They are looked for just before the write, as no engine writes on a condition: what another process changes or
    deletes between the two, some milliseconds, comes back as it was read.
    """
    now = {record.id: record for record in backend.get(collection, [record.id for record in records])}
    kept = [record for record in records if record.id in now and payload(record) == payload(now[record.id])]
    if kept:
        backend.upsert(collection, kept)
    return len(kept)
