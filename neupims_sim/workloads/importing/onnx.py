"""ONNX models: inference with static shapes.

Nodes that only move or rename data are views of what they take. The bias after a matrix product and the batch norm after a
convolution are folded into it. Everything else is an operator of the trace, with the work that the node states: a
GELU or LayerNorm that was exported in pieces stays in pieces.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from neupims_sim.errors import InputError
from neupims_sim.trace import Operator, Trace, TraceHeader
from neupims_sim.workloads.importing import IMPORTERS, ImportedTrace, Importer, ImportOptions
from neupims_sim.workloads.importing.onnx_graph import Graph, Node, read_graph
from neupims_sim.workloads.importing.onnx_operators import HANDLERS, Conversion, refusal


class OnnxImporter(Importer):
    """One inference, batch and shapes as the file or ``shape`` says."""

    options = ("shape",)

    def trace(self, path: Path, options: ImportOptions) -> ImportedTrace:
        graph = read_graph(path, options.shape)
        _check_supported(path, graph)
        conversion = Conversion(graph)
        for node in graph.nodes:
            try:
                HANDLERS[node.op](conversion, node)
            except ValueError as error:
                raise InputError(f"{path}: node {node.name!r} ({node.op}): {error}") from None
        operators = tuple(conversion.builder.operators)
        if not operators:
            raise InputError(f"{path}: nothing in it computes anything from the inputs")
        shapes = {name: list(graph.shapes[name]) for name in graph.inputs}
        batch = next((shape[0] for shape in shapes.values() if shape), 1)
        attrs = {"imported_from": "onnx", "opset": graph.opset, "inputs": shapes}
        return ImportedTrace(Trace(TraceHeader(path.stem, "encode", batch, _dtype(operators), attrs=attrs), operators))


IMPORTERS.register("onnx")(OnnxImporter())


def _check_supported(path: Path, graph: Graph) -> None:
    """Raise ``InputError`` with every operator that is not supported."""
    first: dict[str, Node] = {}
    count: Counter[str] = Counter()
    for node in graph.nodes:
        label = refusal(graph, node)
        if label is not None:
            first.setdefault(label, node)
            count[label] += 1
    if first:
        found = ", ".join(f"{label} ({count[label]}x, first at node {node.name!r})" for label, node in first.items())
        raise InputError(f"{path}: unsupported operators: {found}; supported: {', '.join(HANDLERS)}")


def _dtype(operators: tuple[Operator, ...]) -> str:
    """The dtype of most bytes of weights, of results where there are none."""
    size: Counter[str] = Counter()
    for op in operators:
        size.update({tensor.dtype: tensor.bytes for tensor in op.inputs if tensor.role == "weight"})
    return max(size, key=lambda dtype: (size[dtype], dtype), default=operators[-1].outputs[0].dtype)
