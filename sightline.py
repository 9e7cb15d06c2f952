"""Find images by words, words by images and images by images, and ask questions, over any vector database.

    import sightline as sl

    encoder = sl.load_encoder("compact")
    with sl.connect("faiss://./my-index") as backend:
        sl.index("photos", backend, encoder, "photos")
        for hit in sl.Retriever(backend, encoder, "photos").search("a cat", k=3, modality="image"):
            print(hit.score, hit.uri)

The packages `backends`, `retrieval` and `indexers` have everything else under their own names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import backends
from backends import explain
from backends.wrappers.aliases import Aliased, with_aliases
from indexers import index, remove
from retrieval import Retriever, load_encoder

if TYPE_CHECKING:
    from retrieval.chat.asking import ask

__all__ = ["Retriever", "ask", "connect", "explain", "index", "load_encoder", "remove"]


def connect(url: str) -> Aliased:
    """Open the vector database that `url` names, e.g. ``faiss://./my-index``, with the aliases that are in it.

    Raises ValueError for a malformed URL, `Unavailable` with the address and what to start.
    """
    return with_aliases(backends.connect(url))


def __getattr__(name: str) -> Any:
    # `ask` needs LangChain, which is an extra and slow to import.
    if name == "ask":
        try:
            from retrieval.chat.asking import ask
        except ModuleNotFoundError as error:
            raise ImportError(f"ask needs the package {error.name!r}: pip install 'sightline[chat]'") from error
        return ask
    raise AttributeError(f"module 'sightline' has no attribute {name!r}")
