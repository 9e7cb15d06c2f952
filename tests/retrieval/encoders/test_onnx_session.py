"""Sessions of ONNX Runtime: devices and what is said where they are missing."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from retrieval.encoders import onnx_session
from retrieval.encoders.base import EncoderError
from retrieval.encoders.onnx_session import choose_onnx_device, open_session, session_options


@pytest.fixture
def compiled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that lists CUDA's provider, as onnxruntime-gpu does on a machine without a GPU too."""
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)


@pytest.mark.usefixtures("compiled_in")
def test_auto_takes_cuda_where_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "open_session", lambda model, device: open_session(model))
    assert choose_onnx_device() == "cuda"
    assert choose_onnx_device("cuda:1") == "cuda:1"
    assert choose_onnx_device("cpu") == "cpu"


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA may start here")
@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.usefixtures("compiled_in")
def test_auto_takes_the_cpu_where_cuda_does_not_start(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert choose_onnx_device() == "cpu"
    assert "device cuda: CUDAExecutionProvider does not start" in caplog.text
    assert capfd.readouterr().out == ""
    assert choose_onnx_device("cuda") == "cuda"
    with pytest.raises(EncoderError, match="device cuda: CUDAExecutionProvider does not start"):
        open_session(onnx_session._SMALLEST, device="cuda")


def test_the_smallest_graph_is_one() -> None:
    session = open_session(onnx_session._SMALLEST)
    assert session.run(None, {"x": np.array([3], np.float32)})[0].tolist() == [3.0]


@pytest.mark.parametrize(
    ("device", "system", "step"),
    [
        ("cuda", "Linux", "pip uninstall onnxruntime, then pip install onnxruntime-gpu"),
        ("cuda:0", "Linux", "pip uninstall onnxruntime, then pip install onnxruntime-gpu"),
        ("coreml", "Linux", "which needs a Mac"),
        ("coreml", "Darwin", "pip install --force-reinstall onnxruntime"),
        ("openvino", "Linux", "pip uninstall onnxruntime, then pip install onnxruntime-openvino"),
        ("directml", "Darwin", "which needs Windows"),
        ("directml", "Windows", "pip uninstall onnxruntime, then pip install onnxruntime-directml"),
    ],
)
def test_a_missing_provider_says_what_to_do(
    device: str, system: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(platform, "system", lambda: system)
    with pytest.raises(EncoderError, match=f"device {device} needs ONNX Runtime's .* {step}$"):
        choose_onnx_device(device)


@pytest.mark.parametrize("device", ["mps", "gpu", "cpu:1", "cuda:x", ""])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(EncoderError, match="use auto, cpu, cuda, coreml, openvino, directml or cuda:N"):
        choose_onnx_device(device)


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    for model in (tmp_path / "model.onnx", tmp_path / "absent.onnx", b"no model"):
        with pytest.raises(EncoderError, match="cannot be loaded by ONNX Runtime") as caught:
            open_session(model)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA starts here")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_no_silent_cpu() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    assert open_session(model).get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(EncoderError, match="device cuda:0: CUDAExecutionProvider does not start"):
        open_session(model, device="cuda:0")


def test_threads_do_not_spin() -> None:
    options = session_options(3)
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
