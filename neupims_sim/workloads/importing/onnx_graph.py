"""ONNX files as a graph of nodes whose shapes are all known. Weights' values are never read, nor need they be there.

Shapes come from the onnx package, node by node; what can be computed from shapes and small constants (the target of a reshape,
the bounds of a slice) is computed on the way, by the reference implementation of the same package.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neupims_sim.errors import InputError, shown, suggestion
from neupims_sim.workloads.importing.onnx_shapes import Sides, check_shapes

if TYPE_CHECKING:
    import onnx

_SHAPES = ("Shape", "Size")
MOST_NODES = 1_000_000
"""Of a graph whose functions are written out."""
MOST_CALLS = 100
"""Functions within functions; as many as the onnx package inlines."""
LARGEST_VALUE = 4096
"""Elements of the largest constant whose values are looked at."""


@dataclass(frozen=True)
class Node:
    """One node. Names of absent optional inputs are empty."""

    name: str
    op: str
    """Operator, with its domain in front (``com.microsoft.Gelu``) unless it is of ONNX itself."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def has_input(self, position: int) -> bool:
        return len(self.inputs) > position and self.inputs[position] != ""


@dataclass
class Graph:
    """Nodes in order of execution, and what is known of the values between them, by name."""

    opset: int
    inputs: tuple[str, ...]
    outputs: frozenset[str]
    nodes: list[Node] = field(default_factory=list)
    """Those that compute something from the inputs; the others are constants."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    """The names of ONNX in lower case: ``float``, ``int64``, ``bfloat16``."""
    constants: set[str] = field(default_factory=set)
    """Weights and all that follows from weights and shapes alone."""
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Of small constants."""
    stored: dict[str, int] = field(default_factory=dict)
    """Elements that exist of constants that repeat a weight."""
    uses: Counter[str] = field(default_factory=Counter)
    """How many nodes read a value, and not only its shape."""


def read_graph(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """The graph in an ONNX file.

    ``shapes``: those of inputs, instead of what the file says. A node whose operator the onnx package does not know leaves its
    outputs, and what follows from them, without a shape.

    Raises ``InputError`` if the package is missing, or with file and node where the file is wrong or leaves a shape open.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("the format onnx needs the package onnx; install it with: pip install onnx") from None
    model = _load(onnx, path)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if not opset or not model.graph.node:
        raise InputError(f"{path}: not an ONNX model: {'no nodes' if opset else 'no operator set'}")
    return _Reader(onnx, path, model, opset, shapes).graph()


def _load(package: Any, path: Path) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    try:
        model: onnx.ModelProto = package.load_model(path, format="protobuf", load_external_data=False)
        if model.functions:
            from onnx.inliner import inline_local_functions

            _check_functions(path, model)
            model = inline_local_functions(model)
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from None
    except InputError:
        raise
    except (DecodeError, RuntimeError, ValueError, package.checker.ValidationError) as error:
        raise InputError(f"{path}: not an ONNX model: {_one_line(error)}") from None
    return model


def _check_functions(path: Path, model: onnx.ModelProto) -> None:
    """Raise InputError for functions of the model that call themselves, or that make too many nodes where they are written out."""
    bodies = {(one.domain, one.name, one.overload): one.node for one in model.functions}
    size: dict[tuple[str, str, str], int] = {}

    def nodes(body: Iterable[onnx.NodeProto], calling: tuple[tuple[str, str, str], ...]) -> int:
        count = 0
        for node in body:
            called = (node.domain, node.op_type, node.overload)
            inner = [
                graph.node for one in node.attribute for graph in (*one.graphs, *([one.g] if one.HasField("g") else []))
            ]
            count += 1 + sum(nodes(one, calling) for one in inner)
            if called not in bodies:
                continue
            if called in calling:
                raise InputError(f"{path}: function {shown(node.op_type)} calls itself")
            if len(calling) == MOST_CALLS:
                raise InputError(f"{path}: functions call each other more than {MOST_CALLS} deep")
            if called not in size:
                size[called] = nodes(bodies[called], (*calling, called))
            count += size[called]
            if count > MOST_NODES:
                raise InputError(f"{path}: with its functions written out the graph has more than {MOST_NODES:,} nodes")
        return count

    nodes(model.graph.node, ())


class _Reader:
    """Walks the nodes once; ``types`` holds what is known of every value so far."""

    def __init__(
        self, package: Any, path: Path, model: onnx.ModelProto, opset: int, shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._onnx = package
        self._path = path
        self._model = model
        self._types: dict[str, onnx.TypeProto] = {}
        self._known: set[str] = set()
        self._dtypes = {number: name.lower() for name, number in package.TensorProto.DataType.items()}
        initializers = {tensor.name for tensor in model.graph.initializer}
        initializers |= {tensor.values.name for tensor in model.graph.sparse_initializer}
        inputs = [value for value in model.graph.input if value.name not in initializers]
        self._graph = Graph(
            opset,
            tuple(value.name for value in inputs),
            frozenset(value.name for value in model.graph.output),
        )
        for name in shapes:
            if name not in self._graph.inputs:
                raise InputError(f"{path}: --shape {name}: no such input; {suggestion(name, self._graph.inputs)}")
        self._read_initializers()
        for value in inputs:
            self._learn(value.name, self._input_type(value, shapes.get(value.name)))

    def graph(self) -> Graph:
        for number, proto in enumerate(self._model.graph.node):
            node = self._node(number, proto)
            self._check_order(node)
            self._infer(node, proto)
            if self._is_constant(node, proto):
                self._graph.constants.update(node.outputs)
                if node.op in ("Expand", "Tile") and node.inputs[0] in self._graph.shapes:
                    self._graph.stored[node.outputs[0]] = math.prod(self._graph.shapes[node.inputs[0]])
                self._evaluate(node, proto)
            else:
                self._graph.nodes.append(node)
        return self._graph

    def _is_constant(self, node: Node, proto: onnx.NodeProto) -> bool:
        """Whether the outputs follow from weights and shapes alone."""
        if node.op in ("Constant", *_SHAPES):
            return True
        plain = all(not (one.HasField("g") or one.graphs) for one in proto.attribute)
        return plain and bool(node.inputs) and all(name in self._graph.constants for name in node.inputs if name)

    def _read_initializers(self) -> None:
        onnx = self._onnx
        for tensor in self._model.graph.initializer:
            self._learn(tensor.name, onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
            self._graph.constants.add(tensor.name)
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            if not external and math.prod(tensor.dims) <= LARGEST_VALUE:
                try:
                    self._graph.values[tensor.name] = onnx.numpy_helper.to_array(tensor)
                except (ValueError, TypeError, KeyError) as error:
                    raise InputError(f"{self._path}: initializer {tensor.name!r}: {_one_line(error)}") from None
        for sparse in self._model.graph.sparse_initializer:
            kind = onnx.helper.make_tensor_type_proto(sparse.values.data_type, sparse.dims)
            self._learn(sparse.values.name, kind)
            self._graph.constants.add(sparse.values.name)

    def _input_type(self, value: onnx.ValueInfoProto, given: tuple[int, ...] | None) -> onnx.TypeProto:
        where = f"{self._path}: input {value.name!r}"
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            raise InputError(f"{where} is not a tensor")
        stated = [_dimension(dim) for dim in tensor.shape.dim] if tensor.HasField("shape") else None
        sides: Sequence[object] | None = stated if given is None else given
        if sides is None:
            raise InputError(f"{where} has no shape; give --shape {value.name}=1x3x224x224, for example")
        if given is not None and stated is not None:
            fits = [isinstance(a, str) or a == b for a, b in zip(stated, given, strict=False)]
            if len(stated) != len(given) or not all(fits):
                text = "x".join(map(str, given))
                raise InputError(f"{where}: --shape {value.name}={text}, but the file has {_shown(stated)}")
        for axis, side in enumerate(sides):
            if not isinstance(side, int):
                example = "x".join(str(one) if isinstance(one, int) else "1" for one in sides)
                raise InputError(
                    f"{where}: dimension {axis} is open ({_shown(sides)}); give --shape {value.name}={example}, for example"
                )
        kind: onnx.TypeProto = self._onnx.helper.make_tensor_type_proto(tensor.elem_type, list(sides))
        return kind

    def _node(self, number: int, proto: onnx.NodeProto) -> Node:
        op = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
        try:
            attributes = {one.name: self._onnx.helper.get_attribute_value(one) for one in proto.attribute}
        except ValueError as error:
            raise InputError(f"{self._path}: node {proto.name or number!r} ({op}): {_one_line(error)}") from None
        node = Node(proto.name or f"{proto.op_type}_{number}", op, tuple(proto.input), tuple(proto.output), attributes)
        if node.op not in _SHAPES:
            self._graph.uses.update(name for name in node.inputs if name)
        return node

    def _check_order(self, node: Node) -> None:
        for name in node.inputs:
            if name and name not in self._known:
                raise InputError(
                    f"{self._where(node)}: reads {name!r}, which no earlier node gives "
                    "(nodes go in a circle, or are not in order)"
                )
        for name in node.outputs:
            if name and name in self._known:
                raise InputError(f"{self._where(node)}: gives {name!r}, which is there already")
        self._known.update(node.outputs)

    def _infer(self, node: Node, proto: onnx.NodeProto) -> None:
        """Types of the outputs, as far as the onnx package can tell them."""
        onnx, given = self._onnx, [name for name in node.inputs if name]
        version = {entry.domain: entry.version for entry in self._model.opset_import}.get(
            proto.domain, self._graph.opset
        )
        if not all(name in self._types for name in given):
            return
        try:
            schema = onnx.defs.get_schema(proto.op_type, version, proto.domain)
        except (onnx.defs.SchemaError, TypeError):  # no such operator; a version beyond all bounds
            return
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                proto,
                {name: self._types[name] for name in given},
                {name: self._tensor(name) for name in given if name in self._graph.values},
                opset_imports=list(self._model.opset_import),
                ir_version=self._model.ir_version,
            )
        except Exception as error:  # the package has no common base for its own
            raise InputError(f"{self._where(node)}: {_one_line(error)}") from None
        for name, kind in found.items():
            if name:
                self._learn(name, kind)
        try:
            check_shapes(node.op, self._sides(node, version))
        except ValueError as error:
            raise InputError(f"{self._where(node)}: {error}") from None

    def _sides(self, node: Node, opset: int) -> Sides:
        """What is known of a node's tensors."""
        shapes, values = self._graph.shapes, self._graph.values
        return Sides(
            tuple(shapes.get(name) if name else None for name in node.inputs),
            tuple(shapes.get(name) if name else None for name in node.outputs),
            tuple(values.get(name) if name else None for name in node.inputs),
            node.attributes,
            opset,
        )

    def _learn(self, name: str, kind: onnx.TypeProto) -> None:
        """Remember the type of a value, and its shape if that is known in full."""
        self._known.add(name)
        tensor = kind.tensor_type
        if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
            return
        sides = [_dimension(dim) for dim in tensor.shape.dim]
        if not all(isinstance(side, int) for side in sides):
            return
        self._types[name] = kind
        self._graph.shapes[name] = tuple(int(side) for side in sides)
        self._graph.dtypes[name] = self._dtypes.get(tensor.elem_type, "undefined")

    def _evaluate(self, node: Node, proto: onnx.NodeProto) -> None:
        """Values of a constant node's outputs, where inputs and outputs are small and known."""
        onnx, values = self._onnx, self._graph.values
        shapes = [self._graph.shapes.get(name) for name in node.outputs if name]
        if any(shape is None or math.prod(shape) > LARGEST_VALUE for shape in shapes):
            return
        given = {name: values[name] for name in node.inputs if name and name in values}
        if node.op in _SHAPES:
            if node.inputs[0] not in self._graph.shapes:
                return
            given = {node.inputs[0]: np.broadcast_to(np.float32(0), self._graph.shapes[node.inputs[0]])}
        if any(name and name not in given for name in node.inputs):
            return
        from onnx.reference import ReferenceEvaluator

        inputs, outputs = (
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in side if name]
            for side in (given, node.outputs)
        )
        graph = onnx.helper.make_graph([proto], "constant", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=list(self._model.opset_import))
        try:
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(model).run(None, given)
        except Exception as error:  # whatever NumPy says about it
            raise InputError(f"{self._where(node)}: {_one_line(error)}") from None
        names = [name for name in node.outputs if name]
        values |= {name: np.asarray(result) for name, result in zip(names, results, strict=True)}
        for name in names:
            kind = onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype)
            self._learn(name, onnx.helper.make_tensor_type_proto(kind, values[name].shape))

    def _tensor(self, name: str) -> onnx.TensorProto:
        tensor: onnx.TensorProto = self._onnx.numpy_helper.from_array(self._graph.values[name], name)
        return tensor

    def _where(self, node: Node) -> str:
        return f"{self._path}: node {node.name!r} ({node.op})"


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    """A size, or the name of an open one."""
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or "?"


def _shown(sides: Iterable[object]) -> str:
    return f"[{', '.join(map(str, sides))}]"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
