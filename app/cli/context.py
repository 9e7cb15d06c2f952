"""Opening what a command needs: the store, the encoder that fits the collection, and the search over both."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from app.cli.output import note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.core.settings import Settings
    from backends.base import Backend
    from backends.wrappers.aliases import Aliased
    from retrieval.encoders import Encoder
    from retrieval.search.retriever import Retriever


from app.core.errors import CommandError, UsageError

# More are not kept of one encoder.
MAX_NAMES = 8


@contextlib.contextmanager
def open_backend(settings: Settings) -> Iterator[Aliased]:
    """The store of `settings`, with keyword search and aliases, closed at the end.

    Raises UsageError for a malformed URL, `Unavailable`.
    """
    import backends
    from app.core.settings import default_backend
    from backends.wrappers.aliases import with_aliases

    if settings.backend.startswith("exact://"):
        note("note: exact:// keeps everything in memory and forgets it when this command ends")
    if settings.backend == default_backend(settings.home):
        require_folder(settings.home)
    try:
        # What only reads leaves no folder where there was none.
        backend = backends.connect(settings.backend, make=False)
    except ValueError as error:
        raise UsageError(f"backend: {error}") from None
    with contextlib.ExitStack() as held:
        if not backend.capabilities.keyword:
            from backends.wrappers.keywords import with_keywords

            # A URL may hold a password, so its hash names the folder.
            store = hashlib.sha256(settings.backend.encode("utf-8", "surrogateescape")).hexdigest()[:16]
            folder = settings.home / "keywords" / store
            if why_not_kept(settings.home) is not None:
                # What words there are is then read from the engine anew, for this command.
                folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="sightline-")))
            backend = with_keywords(backend, folder)
        with with_aliases(backend) as aliased:
            yield aliased


def why_not_kept(home: Path) -> str | None:
    """Why nothing can be kept in the home; None where it can."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None if os.access(home, os.W_OK | os.X_OK) else "it may not be written"


def require_folder(home: Path) -> None:
    """Raise CommandError for a home that is no folder, where something is looked for in it."""
    if home.exists() and not home.is_dir():
        raise CommandError(f"the home {home} is no folder: set SIGHTLINE_HOME to one")


@contextlib.contextmanager
def _somewhere() -> Iterator[None]:
    """Be in some folder for as long as the block lasts: torch's own libraries end the process where there is none."""
    try:
        Path.cwd()
    except FileNotFoundError:
        gone = os.open(os.curdir, os.O_RDONLY)
        os.chdir(os.sep)
        try:
            yield
        finally:
            os.fchdir(gone)
            os.close(gone)
    else:
        yield


def encoder_for(settings: Settings, backend: Backend, chosen: str | None) -> Encoder:
    """The encoder of this run: the one that was asked for, else the collection's own, else the setting's.

    chosen: what ``--encoder`` said, if anything. Raises `EncoderError` when it cannot be had.
    """
    from backends.errors import CollectionNotFound

    name = chosen
    if name is None:
        with contextlib.suppress(CollectionNotFound):
            name = encoder_name(backend.describe(settings.collection).encoder, settings.home)
    return load_named(name or settings.encoder, settings)


def encoder_by(fingerprint: str, settings: Settings) -> Callable[[], Encoder] | None:
    """How the encoder of this fingerprint is loaded, which raises `EncoderError`; None where it was never used here."""
    name = encoder_name(fingerprint, settings.home)
    return None if name is None else functools.partial(load_named, name, settings)


def load_named(name: str, settings: Settings) -> Encoder:
    """Load the encoder `name` and remember which fingerprint it has."""
    with _somewhere():
        return _load_named(name, settings)


def _load_named(name: str, settings: Settings) -> Encoder:
    from retrieval.encoders import load_encoder

    # A download shows its own progress, which a spinner would garble.
    with waiting(f"loading encoder {name}") if _is_here(name) else contextlib.nullcontext():
        encoder = load_encoder(name, device=settings.device, precision=settings.precision)
    remember_encoder(encoder.fingerprint, encoder.name, settings.home)
    return encoder


def _is_here(name: str) -> bool:
    from retrieval.encoders.catalogue import CATALOGUE, installed

    return any(card.name == name and installed(card) for card in CATALOGUE)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show that something takes its time, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield


def encoder_name(fingerprint: str, home: Path) -> str | None:
    """The name that loads the encoder of this fingerprint; None where it cannot be known.

    Fingerprints are identities, so what this machine once saw never goes stale; those of ``compact`` and
    ``compact-int8`` begin with the name, and are known without having been seen. An export has the fingerprint of its
    model: of several names it is the last one used whose files are here.
    """
    names = _known_encoders(home).get(fingerprint)
    if not names:
        begin = fingerprint.partition(":")[0]
        return begin if begin in ("compact", "compact-int8") else None
    if len(names) == 1:
        return names[0]
    from retrieval.encoders.catalogue import may_start

    return next((name for name in names if may_start(name)), names[0])


def remember_encoder(fingerprint: str, name: str, home: Path) -> None:
    """Keep that `name` loads `fingerprint`, in ``encoders.json`` under `home`, before other names that do."""
    known = _known_encoders(home)
    before = known.get(fingerprint, [])
    names = [name, *(other for other in before if other != name)][:MAX_NAMES]
    if names == before:
        return
    # Without it only --encoder has to be said again.
    with contextlib.suppress(CommandError):
        write_atomically(home / "encoders.json", json.dumps(known | {fingerprint: names}, indent=2, sort_keys=True))


def _known_encoders(home: Path) -> dict[str, list[str]]:
    """The names that load each fingerprint, the last one used first."""
    # It only saves a flag: where it cannot be read, the user is asked by the refusal that names both fingerprints.
    try:
        known: Any = json.loads((home / "encoders.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    # Once there was one name, and no list.
    listed = {fingerprint: [names] if isinstance(names, str) else names for fingerprint, names in known.items()}
    return {
        fingerprint: names
        for fingerprint, names in listed.items()
        if isinstance(names, list) and all(isinstance(name, str) for name in names)
    }


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`, wholly or not at all. Raises CommandError naming the path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8", errors="replace")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from None


class StoredVectors:
    """Stands in for a collection's encoder where only stored vectors are compared, which spares loading a model."""

    name = "stored vectors"

    def __init__(self, fingerprint: str, dim: int) -> None:
        self.fingerprint = fingerprint
        self.dim = dim

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Refused: there is no model behind this."""
        self._refuse()

    def encode_images(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """Refused: there is no model behind this."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CommandError("this command compares stored items only and has no encoder loaded")


def open_retriever(settings: Settings, backend: Backend, chosen: str | None) -> Retriever:
    """Search over the collection of `settings`, with the encoder that fits it."""
    from retrieval.search.retriever import Retriever

    require_collection(settings, backend)
    model = encoder_for(settings, backend, chosen)
    return Retriever(backend, model, settings.collection, samples=samples_folder(settings))


def stored_retriever(settings: Settings, backend: Backend) -> Retriever:
    """Search from stored items only; loads no model."""
    from retrieval.search.retriever import Retriever

    require_collection(settings, backend)
    spec = backend.describe(settings.collection)
    model = StoredVectors(spec.encoder, spec.dim)
    return Retriever(backend, model, settings.collection, samples=samples_folder(settings))


def samples_folder(settings: Settings) -> Path:
    """Where the samples of this store's collections are kept that relevance is judged by."""
    store = hashlib.sha256(settings.backend.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return settings.home / "samples" / store


def require_collection(settings: Settings, backend: Backend) -> None:
    """Raise CommandError saying what is there and how to fill it, when the collection is not."""
    names = backend.collections()
    if settings.collection in names:
        return
    there = f"there are: {', '.join(names)}" if names else "there is none yet: fill it with sightline index PATH"
    from backends.redaction import shown

    raise CommandError(f"no collection {settings.collection!r} in {shown(settings.backend)}; {there}")
