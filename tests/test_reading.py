"""Files are read no further than a bound, packed or not."""

from __future__ import annotations

import gzip
from pathlib import Path

import onnx
import pytest
from onnx import helper

from neupims_sim import reading
from neupims_sim.errors import InputError
from neupims_sim.serving.readers import read_requests
from neupims_sim.trace import check_trace
from neupims_sim.workloads.importing import import_trace


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 100_000)
    monkeypatch.setattr(reading, "MOST_LINE_BYTES", 10_000)


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
def test_a_line_without_end_is_refused(tmp_path: Path, name: str) -> None:
    content = b"{" + b" " * 20_000
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(InputError, match=f"{name}:1: a line is longer than 10,000 bytes"):
        check_trace(path)


def test_what_a_small_file_unpacks_to_is_bounded(tmp_path: Path) -> None:
    packed = gzip.compress(b"\n" * 10_000_000)
    assert len(packed) < 20_000
    for name, read in (("trace.jsonl.gz", check_trace), ("requests.csv.gz", lambda path: read_requests(path, None))):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(InputError, match=f"{name}: more than 100,000 bytes when it is unpacked"):
            read(tmp_path / name)


def _with_functions(path: Path, bodies: dict[str, list[str]]) -> Path:
    """A model that calls the first of some functions; each calls others in a row, or Relu if it has none."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for name, calls in bodies.items():
        values = ["a", *(f"v{position}" for position in range(len(calls) - 1)), "b"]
        nodes = [
            helper.make_node(called, [values[position]], [values[position + 1]], domain="own")
            for position, called in enumerate(calls)
        ]
        nodes = nodes or [helper.make_node("Relu", ["a"], ["b"])]
        functions.append(helper.make_function("own", name, ["a"], ["b"], nodes, opsets))
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node(next(iter(bodies)), ["x"], ["y"], domain="own")], "g", value[:1], value[1:]
    )
    onnx.save(helper.make_model(graph, functions=functions, opset_imports=opsets), path)
    return path


@pytest.mark.parametrize(
    ("bodies", "message"),
    [
        ({"A": ["A"]}, "function 'A' calls itself"),
        ({"A": ["B"], "B": ["C"], "C": ["B"]}, "function 'B' calls itself"),
        ({f"F{n}": [f"F{n + 1}"] for n in range(300)} | {"F300": []}, "more than 100 deep"),
        ({f"F{n}": [f"F{n + 1}"] * 2 for n in range(60)} | {"F60": []}, "more than 1,000,000 nodes"),
    ],
)
def test_functions_of_an_onnx_file_are_bounded(tmp_path: Path, bodies: dict[str, list[str]], message: str) -> None:
    path = _with_functions(tmp_path / "model.onnx", bodies)
    with pytest.raises(InputError, match=message) as error:
        import_trace("onnx", path)
    assert str(error.value).count(str(path)) == 1


def test_functions_are_written_out(tmp_path: Path) -> None:
    path = _with_functions(tmp_path / "model.onnx", {"A": ["B", "B", "B"], "B": []})
    assert [operator.op for operator in import_trace("onnx", path).trace.operators] == ["relu"] * 3


def test_external_data_is_never_looked_for(tmp_path: Path) -> None:
    """Weights are not read, so that it does not matter where a file says that they lie."""
    outside = tmp_path / "outside.bin"
    outside.write_bytes(bytes(24))
    folder = tmp_path / "model"
    folder.mkdir()
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3, 2])
    weight.data_location = onnx.TensorProto.EXTERNAL
    for location in ("w.bin", "../outside.bin", str(outside)):
        del weight.external_data[:]
        weight.external_data.add(key="location", value=location)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 3])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 2])],
            [weight],
        )
        path = folder / "model.onnx"
        path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
        (operator,) = import_trace("onnx", path).trace.operators
        assert operator.op == "gemm"
