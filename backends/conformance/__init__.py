"""The one suite that every engine passes: `BackendSuite`. Three lines run all of it on a new engine.

In a test module of whoever writes the engine::

    from backends.conformance import BackendSuite

    class TestMine(BackendSuite):
        url = "mine:///{dir}"

``{dir}`` becomes a fresh directory. An engine that `backends.engines` does not know names its class with
``engine = MyBackend``. A server's suite overrides `place`, which starts it or skips with the reason,
and, to have the server rather than the writing process killed, `crash`. `sizes` makes the costly
checks smaller or larger, `seed` varies what is generated.

The rule of the suite: every result is compared with ``exact://``. What an engine cannot do is declared
in its `Capabilities`, and the suite then checks that it raises `Unsupported`; so a gap that was
declared and has since closed fails until the declaration goes.
"""

from __future__ import annotations

try:
    import hypothesis  # noqa: F401
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"backends.conformance needs {error.name}: install it with pip install 'sightline[test]'", name=error.name
    ) from error

CHECKS = (
    "adversarial",
    "aliases",
    "collections",
    "explaining",
    "field_names",
    "filtered_recall",
    "filters",
    "forks",
    "hard_data",
    "indexes",
    "keyword",
    "lifetime",
    "races",
    "records",
    "scanning",
    "scripts",
    "searching",
    "threads",
    "vectorless",
)
# pytest shows the two sides of a failed assertion only in modules it was told of before their import.
pytest.register_assert_rewrite("backends.conformance.oracle", *(f"backends.conformance.{name}" for name in CHECKS))

from backends.conformance.adversarial import HostileChecks  # noqa: E402
from backends.conformance.aliases import AliasChecks  # noqa: E402
from backends.conformance.collections import CollectionChecks  # noqa: E402
from backends.conformance.explaining import ExplainChecks  # noqa: E402
from backends.conformance.field_names import FieldNameChecks  # noqa: E402
from backends.conformance.filtered_recall import PromiseChecks  # noqa: E402
from backends.conformance.filters import FilterChecks  # noqa: E402
from backends.conformance.forks import ForkChecks  # noqa: E402
from backends.conformance.hard_data import HardDataChecks  # noqa: E402
from backends.conformance.indexes import IndexChecks  # noqa: E402
from backends.conformance.keyword import KeywordChecks  # noqa: E402
from backends.conformance.lifetime import LifetimeChecks  # noqa: E402
from backends.conformance.oracle import Twin  # noqa: E402
from backends.conformance.races import RaceChecks  # noqa: E402
from backends.conformance.records import RecordChecks  # noqa: E402
from backends.conformance.scanning import ScanChecks  # noqa: E402
from backends.conformance.scripts import ScriptChecks  # noqa: E402
from backends.conformance.searching import SearchChecks  # noqa: E402
from backends.conformance.store import Sizes, Store, Suite  # noqa: E402
from backends.conformance.threads import ThreadChecks  # noqa: E402
from backends.conformance.vectorless import VectorlessChecks  # noqa: E402

__all__ = ["BackendSuite", "Sizes", "Store", "Twin"]


class BackendSuite(
    CollectionChecks,
    RecordChecks,
    VectorlessChecks,
    SearchChecks,
    ExplainChecks,
    FilterChecks,
    FieldNameChecks,
    KeywordChecks,
    ScriptChecks,
    HostileChecks,
    ScanChecks,
    IndexChecks,
    PromiseChecks,
    HardDataChecks,
    ThreadChecks,
    RaceChecks,
    LifetimeChecks,
    ForkChecks,
    AliasChecks,
    Suite,
):
    """Every check there is, over the engine that `url` names. Subclass it as ``class TestMine(BackendSuite)``."""
