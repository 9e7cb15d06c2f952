"""Sessions of ONNX Runtime: devices and what is said where they are missing."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from onnx import TensorProto, helper

from retrieval.encoders.base import EncoderError
from retrieval.encoders.onnx_session import choose_onnx_device, open_session, session_options


def test_auto_takes_cuda_where_its_provider_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_onnx_device() == (
        "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"
    )
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert choose_onnx_device() == "cuda"
    assert choose_onnx_device("cuda:1") == "cuda:1"
    assert choose_onnx_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("device", "package"),
    [
        ("cuda", "onnxruntime-gpu"),
        ("cuda:0", "onnxruntime-gpu"),
        ("coreml", "onnxruntime, on a Mac"),
        ("openvino", "onnxruntime-openvino"),
        ("directml", "onnxruntime-directml, on Windows"),
    ],
)
def test_a_missing_provider_names_its_package(device: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EncoderError, match=f"device {device} needs ONNX Runtime's .* pip install {package}$"):
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
