"""Shapes of ONNX nodes that contradict each other are refused, and only those: the reference evaluator is the judge."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from neupims_sim.errors import InputError
from neupims_sim.workloads.importing import ImportOptions, import_trace
from neupims_sim.workloads.importing.onnx_graph import read_graph

Shape = tuple[int, ...]


class Case(NamedTuple):
    """A node on an input ``x``; other inputs are constants of these shapes or values."""

    op: str
    x: Shape
    others: tuple[Shape | list[int], ...] = ()
    attributes: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    outputs: int = 1
    opset: int = 21


def model_of(case: Case) -> onnx.ModelProto:
    """A graph of that one node."""
    names = [f"w{number}" for number in range(len(case.others))]
    constants = [
        numpy_helper.from_array(
            np.array(other, np.int64) if isinstance(other, list) else np.ones(other, np.float32), name
        )
        for name, other in zip(names, case.others, strict=True)
    ]
    outputs = [f"y{number}" for number in range(case.outputs)]
    node = helper.make_node(case.op, ["x", *names], outputs, **case.attributes)
    graph = helper.make_graph(
        [node],
        "case",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, case.x)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)])


def runs(case: Case) -> bool:
    """Whether the reference evaluator computes it."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            ReferenceEvaluator(model_of(case)).run(None, {"x": np.ones(case.x, np.float32)})
        except Exception:  # it raises whatever NumPy raises
            return False
    return True


def is_read(case: Case) -> bool:
    """Whether our reader takes it."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model_of(case).SerializeToString())
        file.flush()
        try:
            read_graph(Path(file.name), {})
        except InputError as error:
            message = str(error)
        else:
            return True
    assert "\n" not in message
    assert case.op in message
    return False


LENIENT = {"BatchNormalization", "Conv", "Gemm", "LayerNormalization", "Split"}
"""Operators of which the evaluator, that is NumPy, broadcasts vectors or cuts parts that the specification does not allow."""
FITTING: dict[str, Case] = {
    "reshape": Case("Reshape", (2, 6), ([3, 4],)),
    "reshape with -1": Case("Reshape", (2, 6), ([-1, 4],)),
    "reshape with 0": Case("Reshape", (2, 6), ([0, 3, 2],)),
    "convolution": Case("Conv", (1, 3, 8, 8), ((4, 3, 3, 3), (4,)), {"kernel_shape": [3, 3]}),
    "depthwise convolution": Case("Conv", (1, 4, 8, 8), ((8, 1, 3, 3),), {"group": 4}),
    "gemm": Case("Gemm", (2, 3), ((5, 3), (5,)), {"transB": 1}),
    "gemm with a column": Case("Gemm", (2, 3), ((3, 5), (2, 1))),
    "matmul": Case("MatMul", (7, 2, 3), ((3, 5),)),
    "matmul of batches": Case("MatMul", (7, 1, 2, 3), ((4, 3, 5),)),
    "vectors": Case("MatMul", (3,), ((3,),)),
    "layer norm": Case("LayerNormalization", (2, 5, 4), ((4,), (4,))),
    "layer norm over two axes": Case("LayerNormalization", (2, 5, 4), ((5, 4),), {"axis": 1}),
    "batch norm": Case("BatchNormalization", (2, 3, 4, 4), ((3,), (3,), (3,), (3,))),
    "add": Case("Add", (2, 1, 4), ((3, 1),)),
    "concatenation": Case("Concat", (2, 3), ((2, 5),), {"axis": 1}),
    "split": Case("Split", (6, 2), ([4, 2],), {"axis": 0}, outputs=2),
    "gather": Case("Gather", (5, 2), ([0, 4, -5],)),
    "expand": Case("Expand", (3, 1), ([2, 1, 6],)),
    "where the last axis is longer": Case("PRelu", (2, 3, 4), ((3, 1),)),
}
CONTRADICTING: dict[str, Case] = {
    "reshape": Case("Reshape", (8, 6272), ([1, 1568],)),
    "reshape with -1": Case("Reshape", (2, 6), ([-1, 5],)),
    "reshape with 0": Case("Reshape", (2, 6), ([0, 4, 2],)),
    "channels of a convolution": Case("Conv", (1, 3, 8, 8), ((4, 5, 3, 3),)),
    "kernel of a convolution": Case("Conv", (1, 3, 8, 8), ((4, 3, 3, 3),), {"kernel_shape": [5, 5]}),
    "bias of a convolution": Case("Conv", (1, 3, 8, 8), ((4, 3, 3, 3), (5,))),
    "groups": Case("Conv", (1, 4, 8, 8), ((8, 1, 3, 3),), {"group": 3}),
    "axes of a convolution": Case("Conv", (1, 4, 8, 8), ((8, 4, 3),)),
    "gemm": Case("Gemm", (2, 3), ((3, 5),), {"transB": 1}),
    "bias of a gemm": Case("Gemm", (2, 3), ((3, 5), (4,))),
    "matmul": Case("MatMul", (7, 2, 3), ((4, 5),)),
    "batches": Case("MatMul", (7, 2, 2, 3), ((4, 3, 5),)),
    "layer norm": Case("LayerNormalization", (2, 5, 4), ((5,), (4,))),
    "bias of a layer norm": Case("LayerNormalization", (2, 5, 4), ((4,), (3,))),
    "batch norm": Case("BatchNormalization", (2, 3, 4, 4), ((3,), (3,), (4,), (3,))),
    "add": Case("Add", (2, 3, 4), ((2, 4),)),
    "concatenation": Case("Concat", (2, 3), ((3, 5),), {"axis": 1}),
    "split": Case("Split", (6, 2), ([4, 3],), {"axis": 0}, outputs=2),
    "gather": Case("Gather", (5, 2), ([0, 5],)),
    "expand": Case("Expand", (3, 2), ([2, 3, 6],)),
    "transpose": Case("Transpose", (2, 3), (), {"perm": [0, 0]}),
    "squeeze": Case("Squeeze", (2, 3), ([0],)),
}


@pytest.mark.parametrize("name", FITTING)
def test_shapes_that_fit_are_read(name: str) -> None:
    assert runs(FITTING[name])
    assert is_read(FITTING[name])


@pytest.mark.parametrize("name", CONTRADICTING)
def test_shapes_that_contradict_each_other_are_refused(name: str) -> None:
    assert not is_read(CONTRADICTING[name])
    assert not runs(CONTRADICTING[name]) or CONTRADICTING[name].op in LENIENT


SIDE = st.integers(1, 3)
SHAPE = st.lists(SIDE, min_size=1, max_size=3).map(tuple)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Small shapes that fit or do not, about evenly."""
    op = draw(
        st.sampled_from(
            ["Reshape", "Conv", "Gemm", "MatMul", "Add", "LayerNormalization", "Concat", "BatchNormalization", "Gather"]
        )
    )
    if op == "Reshape":
        return Case(op, draw(SHAPE), (draw(st.lists(st.integers(-1, 6), min_size=1, max_size=3)),))
    if op == "Conv":
        channels, group = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2]))
        weights = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(SIDE), draw(SIDE)
        bias = draw(st.sampled_from([(), ((weights[0],),), ((2,),)]))
        attributes: dict[str, Any] = {"group": group}
        if draw(st.booleans()):
            attributes["kernel_shape"] = draw(st.sampled_from([list(weights[2:]), [2, 2]]))
        return Case(op, (1, channels, 4, 4), (weights, *bias), attributes)
    if op == "Gemm":
        bias = draw(st.sampled_from([(), (draw(SHAPE),)]))
        return Case(
            op,
            (draw(SIDE), draw(SIDE)),
            ((draw(SIDE), draw(SIDE)), *bias),
            {"transA": draw(st.integers(0, 1)), "transB": draw(st.integers(0, 1))},
        )
    if op == "LayerNormalization":
        return Case(op, draw(SHAPE), (draw(SHAPE), draw(SHAPE)), {"axis": draw(st.integers(-3, 2))})
    if op == "Concat":
        return Case(op, draw(SHAPE), (draw(SHAPE),), {"axis": draw(st.integers(-2, 2))})
    if op == "BatchNormalization":
        channels = draw(SIDE)
        lengths = [draw(st.sampled_from([channels, channels, channels, 2])) for _ in range(4)]
        return Case(op, (2, channels, 2), tuple((length,) for length in lengths))
    if op == "Gather":
        return Case(
            op,
            draw(SHAPE),
            (draw(st.lists(st.integers(-4, 4), min_size=1, max_size=3)),),
            {"axis": draw(st.integers(-2, 2))},
        )
    return Case(op, draw(SHAPE), (draw(SHAPE),))


@given(cases())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_reader_refuses_what_the_reference_evaluator_refuses(case: Case) -> None:
    if not runs(case):
        assert not is_read(case)
    elif case.op not in LENIENT:
        assert is_read(case)


def test_a_batch_that_the_file_has_fixed_is_not_overruled(tmp_path: Path) -> None:
    """A convolution for 8 images and a product for 1, because the target of the reshape is a constant."""
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    weights = {"kernel": (8, 3, 3, 3), "matrix": (1568, 100)}
    constants = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    constants.append(numpy_helper.from_array(np.array([1, 1568]), "target"))
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["map"], kernel_shape=[3, 3]),
        helper.make_node("Reshape", ["map", "target"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "matrix"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "model", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "model.onnx")
    with pytest.raises(
        InputError,
        match=r"node 'flatten' \(Reshape\): \[8, 8, 14, 14\] has 12544 elements and cannot become \[1, 1568\]",
    ):
        import_trace("onnx", tmp_path / "model.onnx", ImportOptions(shape={"x": (8, 3, 16, 16)}))
    trace = import_trace("onnx", tmp_path / "model.onnx", ImportOptions(shape={"x": (1, 3, 16, 16)})).trace
    assert [operator.op for operator in trace.operators] == ["convolution", "gemm"]
