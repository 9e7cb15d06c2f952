"""The readers of weights: they give what torch and safetensors give, and refuse what is not plain numbers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retrieval.encoders.compact_weights import map_safetensors, parse_legacy_torch


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
