"""Cold starts of a checkout beside itself: what is run, what is counted, and the table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.cold_starts import HERE, Checkout, compare, table


def test_the_table_has_medians_and_the_spread_of_the_ratios() -> None:
    found = {"search": [(2.0, 1.0), (4.0, 1.0), (2.0, 0.5)]}
    assert table(found).splitlines()[-1] == "| search | 2.00 | 1.00 | 0.50 | 0.25 to 0.50 |"


@pytest.mark.slow
def test_every_run_is_measured_on_both_checkouts(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / "red.png")
    found = compare(tmp_path / "pictures", Checkout(HERE, tmp_path / "a"), Checkout(HERE, tmp_path / "b"), rounds=1)
    assert len(found) == 5
    assert all(0 < seconds < 60 for pairs in found.values() for pair in pairs for seconds in pair)


def test_a_command_that_fails_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        Checkout(HERE, tmp_path).command("search", "nothing is indexed")
