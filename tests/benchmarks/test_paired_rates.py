"""Rates of two trees side by side: what is compared, what is refused, and the table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.made_pictures import make_pictures
from benchmarks.paired_rates import HERE, SIDES, TASKS, TOLERANCE, PairError, compare, difference, main, table


def test_the_table_has_medians_and_the_spread_of_the_ratios() -> None:
    rates = {"before": [4.0, 5.0, 6.0], "now": [12.0, 10.0, 9.0]}
    sides = {name: [{"per_s": rate, "processor_s": 1 / rate} for rate in of] for name, of in rates.items()}
    lines = table({"tasks": {"encode": sides}}).splitlines()
    assert lines[2] == "| encode | images/s | 5.0 | 10.0 | 2.00 | 1.50 to 3.00 |"
    assert lines[3] == "| encode | processor ms an image | 200.0 | 100.0 | 0.50 | 0.33 to 0.67 |"


def made(fingerprint: str, moved: float) -> SimpleNamespace:
    return SimpleNamespace(fingerprint=fingerprint, vectors=np.full((2, 3), 0.5 + moved))


def test_other_vectors_are_not_compared() -> None:
    assert difference(made("a", 0), made("a", TOLERANCE / 2)) == pytest.approx(TOLERANCE / 2)
    with pytest.raises(PairError, match=r"vectors differ by up to 2\.0e-05"):
        difference(made("a", 0), made("a", 2 * TOLERANCE))
    with pytest.raises(PairError, match="fingerprints differ: a before, b now"):
        difference(made("a", 0), made("b", 0))


def test_what_cannot_be_compared_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-revision", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("no-such-revision: ")
    with pytest.raises(PairError, match="holds no pictures"):
        compare((HERE, HERE), tmp_path, 1)


@pytest.mark.slow
def test_a_tree_beside_itself_has_the_same_vectors(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", (64, 48), 3)
    report = compare((HERE, HERE), tmp_path / "pictures", rounds=1)
    assert (report["pictures"], report["largest_difference"]) == (3, 0.0)
    for task in TASKS:
        for side in SIDES:
            assert [set(each) for each in report["tasks"][task][side]] == [{"per_s", "processor_s"}]
