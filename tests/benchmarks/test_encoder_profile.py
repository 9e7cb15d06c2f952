"""Where an index run's time goes: what is counted, and the tables."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import encoder_profile
from benchmarks.encoder_profile import PARTS, PartTimes, network_operations
from benchmarks.encoders import main
from benchmarks.made_pictures import make_pictures
from retrieval.encoders.compact_graph import Graph
from retrieval.encoders.compact_image import image_graph


def test_operations_are_those_of_the_convolutions() -> None:
    graph = Graph()
    views = graph.input("views", "uint8", ("v", 9, 9, 3))
    kernels, bias = graph.constant(np.zeros((4, 3, 3, 3), np.float32)), graph.constant(np.zeros(4, np.float32))
    small = graph.add("Conv", views, kernels, bias, strides=(2, 2), pads=(1, 1, 1, 1), group=1)  # 5 x 5
    each = graph.constant(np.zeros((4, 1, 3, 3), np.float32))
    graph.give("out", graph.add("Conv", graph.add("Clip", small), each, bias, strides=(1, 1), pads=(0,) * 4, group=4))
    assert network_operations(graph) == 2 * 4 * 3 * 9 * 25 + 2 * 4 * 9 * 9


def test_the_image_network_has_the_operations_that_were_published() -> None:
    graph, _ = image_graph()
    # EfficientNet-Lite2: 860 million multiplications, each with an addition.
    assert network_operations(graph) == pytest.approx(2 * 860e6, rel=0.03)


def test_times_of_all_threads_add_up_and_waiting_is_not_counted() -> None:
    times, waits, until = PartTimes(), threading.Event(), 0.05

    def burn() -> None:
        while time.thread_time() < until:
            pass

    threads = [threading.Thread(target=times.timed("burnt", burn)) for _ in range(2)]
    waiting = threading.Thread(target=times.timed("waited", waits.wait))
    for thread in (waiting, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    waits.set()
    waiting.join()
    assert times.seconds["burnt"] == pytest.approx(2 * until, rel=0.2)
    assert times.seconds["waited"] < until


def test_made_pictures_are_different_and_the_same_again(tmp_path: Path) -> None:
    files, again = (make_pictures(tmp_path / name, (64, 48), 3) for name in ("a", "b"))
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    assert len({file.read_bytes() for file in files}) == 3
    with Image.open(files[0]) as image:
        assert (image.size, image.format) == ((64, 48), "JPEG")


@pytest.mark.slow
def test_a_profile_counts_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = encoder_profile.measure
    monkeypatch.setattr(encoder_profile, "measure", lambda rounds: measure(rounds, (((400, 300), 3),)))
    monkeypatch.setattr(encoder_profile, "_MATRIX", 256)
    assert main(["--profile", "--repeats", "1", "--json", str(tmp_path / "profile.json")]) == 0
    table = capsys.readouterr().out
    assert all(f"| {part} | " in table for part in (*PARTS, "pure / index, processor time", "network / peak"))
    assert (tmp_path / "profile.json").stat().st_size > 0


def test_a_folder_or_profile_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--profile" in capsys.readouterr().err
