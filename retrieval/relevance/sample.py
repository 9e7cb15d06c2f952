"""A stored random sample of a collection's vectors: what a query's scores are compared with.

The sample of a modality is the items with the lowest hashes of their ids: a uniform sample without
replacement that does not depend on the order of writing or scanning, and of which any two takings agree
where the collection did (bottom-k sampling: Cohen and Kaplan, Summarizing data using bottom-k sketches,
PODC 2007). It is a cache. The truth is in the backend, and whatever is missing, damaged or out of date is
taken anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import io
import json
import logging
import os
import random
import threading
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.base import MODALITIES, Backend, CollectionSpec, Compare, Corrupt, Modality, Record
from backends.text import searched_text
from retrieval.relevance.words import WordCounts

__all__ = ["SAMPLE_SIZE", "CollectionSample", "Sample", "SampleCache", "forget_sample", "is_current", "take_sample"]

# Quantiles of 2,048 scores are known to about a hundredth of the distribution; 4 MiB at 512 dimensions.
SAMPLE_SIZE = 2048
# Taking a sample of a collection this small costs less than a search may, so any change of it is followed.
SMALL = 4096
# A larger collection's sample stays in use until so much of the collection changed that it could tell.
CHANGE = 0.1
# All members of a sample this small are compared with the store; of a larger one that many, drawn anew each time.
SPOT_CHECKS = 256
_SPOT_CHECKS_LARGE = 64
_VERSION = 2
_SCAN_BATCH = 2000
_GET_BATCH = 256

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """Items of one modality drawn at random: ids, (n, d) float32 vectors, and what belongs together.

    `groups` (n,) int64: items of one group come from one file (an image and its captions); `texts` (n,) int64: hashes
    of what keyword search reads of each. `population`
    is how many items of the modality the collection had when the sample was taken, `without` how many others were
    drawn that have no vector, which no search by vectors can find; `words` counts the words of all that were drawn.
    """

    ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    groups: NDArray[np.int64]
    texts: NDArray[np.int64]
    population: int
    without: int = 0
    words: WordCounts = field(default_factory=WordCounts)

    @property
    def searchable(self) -> int:
        """How many items of the modality have a vector, as far as the sample tells; exact where all were drawn."""
        drawn = len(self.ids) + self.without
        return round(self.population * len(self.ids) / drawn) if drawn else 0


@dataclass(frozen=True, slots=True)
class CollectionSample:
    """The samples of a collection by modality, and the collection's description when they were taken."""

    spec: CollectionSpec
    samples: Mapping[Modality, Sample]


def take_sample(backend: Backend, collection: str, size: int = SAMPLE_SIZE) -> CollectionSample:
    """Draw up to `size` items of each modality; one scan of the ids, then the vectors of those drawn.

    Memory: `size` vectors of each modality and one page. Raises `BackendError`.
    """
    spec = backend.describe(collection)
    lowest: dict[Modality, list[tuple[int, str]]] = {modality: [] for modality in MODALITIES}
    population = dict.fromkeys(MODALITIES, 0)
    for page in backend.scan(collection, with_vectors=False, batch=_SCAN_BATCH):
        for record in page.records:
            population[record.modality] += 1
            heap, entry = lowest[record.modality], (-_hash(record.id), record.id)
            if len(heap) < size:
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)
    samples = {}
    for modality, heap in lowest.items():
        ids = [record_id for _, record_id in sorted(heap, reverse=True)]
        batches = (ids[start : start + _GET_BATCH] for start in range(0, len(ids), _GET_BATCH))
        records = [record for batch in batches for record in backend.get(collection, batch, with_vectors=True)]
        samples[modality] = _sample_of(records, population[modality], spec.dim)
    return CollectionSample(spec, samples)


def _sample_of(records: Iterable[Record], population: int, dim: int) -> Sample:
    drawn = list(records)
    rows = [record for record in drawn if record.has_vector]
    vectors = np.array([record.vector for record in rows], dtype=np.float32).reshape(-1, dim)
    groups = np.array([_hash(record.uri or record.id) - (1 << 63) for record in rows], dtype=np.int64)
    return Sample(
        tuple(record.id for record in rows),
        vectors,
        groups,
        np.array([_text_hash(record) for record in rows], dtype=np.int64),
        population=max(population, len(drawn)),
        without=len(drawn) - len(rows),
        words=WordCounts.of(drawn),
    )


def _text_hash(record: Record) -> int:
    return _hash(searched_text(record.text, record.uri)) - (1 << 63)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def is_current(taken: CollectionSample, backend: Backend, collection: str) -> bool:
    """Whether the sample still stands for the collection, whoever changed it; a few small requests.

    The description and the number of items are compared, and members of the sample with what is stored under
    their ids. Any difference counts where the collection is small; a larger one may
    change by a tenth. What replaced a share f of a large collection is missed with (1 - f) ^ 64 at most
    before the next check draws other members. Raises `BackendError`.
    """
    if backend.describe(collection) != taken.spec:
        return False
    before, now = sum(sample.population for sample in taken.samples.values()), backend.count(collection)
    allowed = 0.0 if max(now, before) <= SMALL else CHANGE
    if abs(now - before) > allowed * before:
        return False
    for modality, sample in taken.samples.items():
        # The first items of a modality may be few beside the rest.
        if now != before and not sample.population and backend.count(collection, Compare("modality", "eq", modality)):
            return False
    for modality, sample in taken.samples.items():
        checked = _spot_check(sample)
        changed = len(checked) - _unchanged(sample, modality, checked, backend, collection)
        if checked and changed > allowed * len(checked):
            return False
    return True


def _spot_check(sample: Sample) -> list[int]:
    n = len(sample.ids)
    if n <= SPOT_CHECKS:
        return list(range(n))
    return random.sample(range(n), _SPOT_CHECKS_LARGE)


def _unchanged(sample: Sample, modality: Modality, rows: list[int], backend: Backend, collection: str) -> int:
    records = backend.get(collection, [sample.ids[row] for row in rows], with_vectors=True)
    stored = {record.id: record for record in records if record.modality == modality and record.has_vector}
    same = 0
    for row in rows:
        record = stored.get(sample.ids[row])
        if record is not None and _text_hash(record) == sample.texts[row]:
            # An engine that stores half floats or normalises gives back what it once gave, so this is exact but for it.
            same += np.allclose(np.asarray(record.vector), sample.vectors[row], rtol=1e-3, atol=1e-4)
    return same


@dataclass
class SampleCache:
    """The current sample of one collection, kept in a file of `folder` where one is given. Thread-safe.

    Several processes may share the folder: a file is replaced whole, and each reader checks it against the
    backend. A folder that cannot be written only costs taking the sample again.
    """

    backend: Backend
    collection: str
    folder: Path | None = None
    size: int = SAMPLE_SIZE
    _taken: CollectionSample | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> CollectionSample:
        """The sample, checked against the backend now and taken anew if it has to be. Raises `BackendError`."""
        with self._lock:
            for known in (self._taken, self._read):
                taken = known() if callable(known) else known
                if taken is not None and is_current(taken, self.backend, self.collection):
                    self._taken = taken
                    return taken
            self._taken = take_sample(self.backend, self.collection, self.size)
            self._write(self._taken)
            return self._taken

    def _read(self) -> CollectionSample | None:
        if self.folder is None:
            return None
        try:
            return _from_bytes(_file(self.folder, self.collection).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, Corrupt, zipfile.BadZipFile) as error:
            _log.info("the stored sample of %r is not usable and is taken anew: %s", self.collection, error)
            return None

    def _write(self, taken: CollectionSample) -> None:
        if self.folder is None:
            return
        try:
            write_whole(_file(self.folder, self.collection), _to_bytes(taken))
        except OSError as error:
            _log.info("the sample of %r cannot be kept in %s: %s", self.collection, self.folder, error)


def forget_sample(folder: Path, collection: str) -> None:
    """Remove the stored sample of a collection, if there is one."""
    with contextlib.suppress(OSError):
        _file(folder, collection).unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, wholly or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _file(folder: Path, collection: str) -> Path:
    return folder / f"{hashlib.sha256(collection.encode()).hexdigest()[:32]}.npz"


def _to_bytes(taken: CollectionSample) -> bytes:
    about = {
        "version": _VERSION,
        "spec": taken.spec.to_json(),
        "samples": {
            m: {"ids": s.ids, "population": s.population, "without": s.without, "words": asdict(s.words)}
            for m, s in taken.samples.items()
        },
    }
    arrays: dict[str, NDArray[np.generic]] = {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}
    for modality, sample in taken.samples.items():
        arrays[f"{modality}_vectors"] = sample.vectors
        arrays[f"{modality}_groups"] = sample.groups
        arrays[f"{modality}_texts"] = sample.texts
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _from_bytes(data: bytes) -> CollectionSample:
    """What `_to_bytes` wrote; the archive's checksums find damage. Raises ValueError and what numpy raises."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        if about["version"] != _VERSION:
            raise ValueError(f"it is of version {about['version']}")
        spec = CollectionSpec.from_json(about["spec"])
        samples: dict[Modality, Sample] = {}
        for modality in MODALITIES:
            of_modality = about["samples"][modality]
            ids, population, without = of_modality["ids"], of_modality["population"], of_modality["without"]
            vectors, groups, texts = (arrays[f"{modality}_{name}"] for name in ("vectors", "groups", "texts"))
            n, words = len(ids), WordCounts(**of_modality["words"])
            whole = vectors.shape == (n, spec.dim) and vectors.dtype == np.float32 and np.isfinite(vectors).all()
            marked = all(each.shape == (n,) and each.dtype == np.int64 for each in (groups, texts))
            if not whole or not marked or not n + without <= population:
                raise ValueError(f"its {modality} vectors are not what it says")
            samples[modality] = Sample(tuple(ids), vectors, groups, texts, population, without, words)
    return CollectionSample(spec, samples)
