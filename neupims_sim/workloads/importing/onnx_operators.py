"""What a node of an ONNX graph is as an operator of a trace: one function per group of ONNX operators, found by name.

Semantics: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from neupims_sim.registry import Registry
from neupims_sim.trace import Role, Tensor
from neupims_sim.trace.kinds.convolution import window_positions
from neupims_sim.workloads.building import TraceBuilder
from neupims_sim.workloads.importing.onnx_graph import Graph, Node

DTYPES: Mapping[str, str] = {
    "float": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float8e4m3fn": "float8",
    "float8e4m3fnuz": "float8",
    "float8e5m2": "float8",
    "float8e5m2fnuz": "float8",
    "int64": "int64",
    "int32": "int32",
    "int8": "int8",
    "uint8": "uint8",
    "bool": "uint8",
}
"""Dtypes of a trace by those of ONNX; a truth value takes a byte."""


@dataclass(frozen=True)
class Value:
    """A value of the graph and the tensor of the trace that holds it."""

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    stored: int
    """Elements that exist; fewer than ``shape`` has where they are repeated."""

    def as_shape(self, *shape: int) -> Tensor:
        """The tensor, seen with another shape."""
        return Tensor(self.tensor, shape or (1,), self.dtype, self.role)

    def elementwise(self) -> Tensor:
        """The tensor for an operator that broadcasts: what is repeated counts once."""
        return self.as_shape(*(self.shape if self.stored == math.prod(self.shape) else (self.stored,)))


class Product(NamedTuple):
    """The operator that gives a value as the plain result of a matrix product."""

    operator: int
    axis: int
    """Axis of the value along which a bias of the product goes."""


class Conversion:
    """The trace of a graph as it grows."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = TraceBuilder("float32")
        self._values: dict[str, Value] = {}
        self._products: dict[str, Product] = {}
        self._names: dict[str, str] = {}

    def value(self, name: str) -> Value:
        """What a node reads. Raises ``ValueError`` for a shape or dtype that a trace cannot have."""
        if name not in self._values:
            role: Role = "weight" if name in self.graph.constants else "activation"
            self._values[name] = self._whole(name, self._unique(name), role)
        return self._values[name]

    def emit(
        self,
        node: Node,
        kind: str,
        inputs: tuple[Tensor, ...],
        shape: tuple[int, ...],
        attrs: dict[str, Any] | None = None,
    ) -> None:
        """Append an operator whose result, seen as ``shape``, is the node's first output."""
        name = node.outputs[0]
        result = self._whole(name, self._unique(name), "activation")
        self._values[name] = result
        self.builder.emit(node.name, kind, inputs, (result.as_shape(*shape),), attrs=attrs)

    def emit_product(
        self,
        node: Node,
        kind: str,
        inputs: tuple[Tensor, ...],
        shape: tuple[int, ...],
        attrs: dict[str, Any] | None = None,
        axis: int = -1,
    ) -> None:
        """Append a matrix product into which a bias along ``axis`` of the node's output may be folded."""
        self.emit(node, kind, inputs, shape, attrs)
        self._products[node.outputs[0]] = Product(len(self.builder.operators) - 1, axis)

    def view(self, node: Node, source: Value, position: int = 0) -> None:
        """Make an output a view: of the whole where it has as many elements, of a part where fewer, repeated where more."""
        name = node.outputs[position]
        seen = self._whole(name, source.tensor, source.role)
        elements = math.prod(seen.shape)
        if elements < math.prod(source.shape):
            seen = replace(seen, tensor=f"{source.tensor}.{self._unique(name)}")
        else:
            seen = replace(seen, stored=source.stored)
        self._values[name] = seen
        if elements == math.prod(source.shape):
            self._pass_product(node, name)

    def fold(self, node: Node, name: str, vector: Value, *, into_biased: bool = False) -> bool:
        """Fold the constant ``vector`` into the product that gives value ``name``; ``node``'s output is that product's then.

        Returns False where that is impossible: no product, others read it too, or another axis.
        """
        product, shape = self._products.get(name), self.graph.shapes[name]
        if product is None or self.graph.uses[name] != 1 or name in self.graph.outputs:
            return False
        op = self.builder.operators[product.operator]
        aligned = (1,) * (len(shape) - len(vector.shape)) + vector.shape
        along = [side if axis == product.axis % len(shape) else 1 for axis, side in enumerate(shape)]
        if op.inputs[1].role != "weight" or list(aligned) != along or (len(op.inputs) > 2 and not into_biased):
            return False
        if len(op.inputs) == 2:
            bias = vector.as_shape(math.prod(along))
            self.builder.operators[product.operator] = replace(op, inputs=(*op.inputs, bias))
        self._values[node.outputs[0]] = self._values[name]
        self._products[node.outputs[0]] = product
        return True

    def _pass_product(self, node: Node, name: str) -> None:
        """A product that is only read as a view may still be given a bias, where the last axis stays."""
        before = node.inputs[0]
        product = self._products.get(before)
        if (
            product is not None
            and product.axis == -1
            and self.graph.uses[before] == 1
            and node.op in ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Dropout")
            and self.graph.shapes[before][-1:] == self.graph.shapes[name][-1:]
        ):
            self._products[name] = product

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value. Raises ``ValueError`` where it is open."""
        if name not in self.graph.shapes:
            raise ValueError(f"the shape of {name!r} is only known at run time; static shapes are needed")
        return self.graph.shapes[name]

    def _whole(self, name: str, tensor: str, role: Role) -> Value:
        shape, dtype = self.shape(name), self.graph.dtypes.get(name)
        if dtype is None or dtype not in DTYPES:
            raise ValueError(f"{name!r} is of type {dtype}; allowed: {', '.join(DTYPES)}")
        return Value(tensor, shape, DTYPES[dtype], role, self.graph.stored.get(name, math.prod(shape)))

    def _unique(self, name: str) -> str:
        """A name without the signs of a view, which no other value has."""
        plain = re.sub(r"[.\[\]]", "_", name)
        while self._names.setdefault(plain, name) != name:
            plain += "_"
        return plain


Handler = Callable[[Conversion, Node], None]

HANDLERS: Registry[Handler] = Registry("ONNX operator")
"""Every supported operator by name."""

RESIZING = ("Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split")
REPEATING = ("Expand", "Tile")
ELEMENTWISE: Mapping[str, Mapping[str, int]] = {
    "Sub": {"add": 1},
    "Mul": {"multiply": 1},
    "Div": {"divide": 1},
    "Neg": {"multiply": 1},
    "Abs": {"compare": 1},
    "Reciprocal": {"divide": 1},
    "Sqrt": {"sqrt": 1},
    "Exp": {"exp": 1},
    "Log": {"log": 1},
    "Tanh": {"tanh": 1},
    "Erf": {"tanh": 1},
    "Sigmoid": {"exp": 1, "add": 1, "divide": 1},
    "Clip": {"compare": 2},
    "LeakyRelu": {"compare": 1, "multiply": 1},
    "Where": {"compare": 1},
    **{name: {"compare": 1} for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
    **{name: {"compare": 1} for name in ("And", "Or", "Not")},
}
"""Elementary operations per output element. The error function is taken to cost what tanh costs."""
PAIRWISE: Mapping[str, str] = {"Max": "compare", "Min": "compare", "Sum": "add"}
"""Operation between each two inputs."""
POWERS: Mapping[float, Mapping[str, int]] = {0.5: {"sqrt": 1}, 2.0: {"multiply": 1}, 3.0: {"multiply": 2}}
"""Constant exponents that are cheaper than a power."""
REDUCTIONS = {"ReduceMean": "add", "ReduceSum": "add", "ReduceMax": "compare", "ReduceMin": "compare"}


def refusal(graph: Graph, node: Node) -> str | None:
    """What to call a node that is not supported; None for one that is."""
    op, attributes = node.op, node.attributes
    if op not in HANDLERS:
        return op
    if op == "Conv" and attributes.get("group", 1) != 1:
        return f"Conv with group={attributes['group']}"
    if op == "Gemm" and (attributes.get("alpha", 1.0), attributes.get("beta", 1.0)) != (1.0, 1.0):
        return "Gemm with alpha or beta"
    if op == "Gemm" and node.has_input(2) and not _is_vector(graph, node.inputs[2], node.outputs[0]):
        return "Gemm with a bias that is no vector"
    if op == "LayerNormalization" and not node.has_input(2):
        return "LayerNormalization without bias"
    if op == "BatchNormalization" and attributes.get("training_mode", 0):
        return "BatchNormalization in training mode"
    if op in ("MaxPool", "Dropout", "LayerNormalization") and any(graph.uses[name] for name in node.outputs[1:]):
        return f"{op} with {len(node.outputs)} outputs"
    if op == "Gather" and node.inputs[0] not in graph.constants and node.inputs[1] not in graph.constants:
        return "Gather at computed indices"
    return None


def _is_vector(graph: Graph, name: str, result: str) -> bool:
    """Whether a value has one element per column of ``result``, as far as shapes are known."""
    shape, columns = graph.shapes.get(name), graph.shapes.get(result)
    return shape is None or columns is None or math.prod(shape) == math.prod(shape[-1:]) == columns[-1]


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Decorator: the function makes operators of these ONNX operators."""

    def add(handler: Handler) -> Handler:
        for name in names:
            HANDLERS.register(name)(handler)
        return handler

    return add


@handles(*RESIZING)
def _view(conversion: Conversion, node: Node) -> None:
    source = conversion.value(node.inputs[0])
    for position, name in enumerate(node.outputs):
        if name and (position == 0 or node.op == "Split"):
            conversion.view(node, source, position)


@handles(*REPEATING)
def _repeat(conversion: Conversion, node: Node) -> None:
    conversion.view(node, conversion.value(node.inputs[0]))


@handles("Gather")
def _gather(conversion: Conversion, node: Node) -> None:
    """A part, or the rows of a table that are looked up."""
    data, indices = (conversion.value(name) for name in node.inputs[:2])
    if node.inputs[1] in conversion.graph.constants:
        return conversion.view(node, data)
    if node.attributes.get("axis", 0) != 0 or len(data.shape) < 2:
        raise ValueError("only rows of a table can be gathered; axis must be 0, the table of two axes")
    width, tokens = math.prod(data.shape[1:]), math.prod(indices.shape)
    table = data.as_shape(data.shape[0], width)
    conversion.emit(node, "embedding", (indices.as_shape(tokens), table), (tokens, width))
    return None


@handles("Concat")
def _concat(conversion: Conversion, node: Node) -> None:
    parts = [conversion.value(name) for name in node.inputs]
    if len(parts) == 1:
        return conversion.view(node, parts[0])
    conversion.emit(node, "concatenate", tuple(part.elementwise() for part in parts), _output(conversion, node))
    return None


@handles("Gemm")
def _gemm(conversion: Conversion, node: Node) -> None:
    left, right = (conversion.value(name) for name in node.inputs[:2])
    m, n = _output(conversion, node)
    k = left.shape[0 if node.attributes.get("transA", 0) else 1]
    inputs = [left.as_shape(m, k), right.as_shape(k, n)]
    inputs += [conversion.value(node.inputs[2]).as_shape(n)] if node.has_input(2) else []
    conversion.emit_product(node, "gemm", tuple(inputs), (m, n))


@handles("MatMul")
def _matmul(conversion: Conversion, node: Node) -> None:
    """A GEMM where one matrix serves all on the right, else a batch of them."""
    left, right = (conversion.value(name) for name in node.inputs)
    a, b = left.shape, right.shape
    m, k = (a[-2], a[-1]) if len(a) > 1 else (1, a[-1])
    n = b[-1] if len(b) > 1 else 1
    batch = math.prod(conversion.shape(node.outputs[0])) // (m * n)
    if math.prod(b) == k * n:
        rows = batch * m
        conversion.emit_product(node, "gemm", (left.as_shape(rows, k), right.as_shape(k, n)), (rows, n))
    else:
        conversion.emit(
            node, "batched_gemm", (_matrices(left, batch, m, k), _matrices(right, batch, k, n)), (batch, m, n)
        )


def _matrices(value: Value, batch: int, rows: int, columns: int) -> Tensor:
    """An operand ``[B, rows, columns]`` of a batch: matrices that are repeated count once."""
    stored, rest = divmod(value.stored, rows * columns)
    count = stored if rest == 0 and stored and batch % stored == 0 else math.prod(value.shape) // (rows * columns)
    return value.as_shape(count, rows, columns)


@handles("Conv")
def _convolution(conversion: Conversion, node: Node) -> None:
    source, weights = (conversion.value(name) for name in node.inputs[:2])
    batch, channels, *sides = source.shape
    width, _, *kernel = weights.shape
    positions = _output(conversion, node)[2:]
    depth = channels * math.prod(kernel)
    inputs = [weights.as_shape(depth, width)]
    inputs += [conversion.value(node.inputs[2]).as_shape(width)] if node.has_input(2) else []
    window = _square_window(node, sides, kernel, positions)
    if window is not None:
        shape = (batch, width, *positions)
        conversion.emit_product(
            node, "convolution", (source.as_shape(*source.shape), *inputs), shape, dict(window), axis=1
        )
    else:
        rows = batch * math.prod(positions)
        described = {"map": [channels, *sides], "kernel": kernel, "strides": _list(node, "strides", len(kernel))}
        gathered = source.as_shape(rows, depth)
        attrs = {"im2col": described}
        conversion.emit_product(node, "gemm", (gathered, *inputs), (rows, width), attrs, axis=1)


@handles("BatchNormalization")
def _batch_norm(conversion: Conversion, node: Node) -> None:
    """Part of the convolution before it, or else one multiply and one add per element."""
    source, scale, shift = (conversion.value(name) for name in node.inputs[:3])
    width = math.prod(shift.shape)
    per_channel = replace(shift, shape=(width, *[1] * (len(source.shape) - 2)))
    if shift.role == "weight" and conversion.fold(node, node.inputs[0], per_channel, into_biased=True):
        return
    inputs = (source.elementwise(), scale.as_shape(width), shift.as_shape(width))
    conversion.emit(node, "elementwise", inputs, _output(conversion, node), {"operations": {"multiply": 1, "add": 1}})


@handles("Add")
def _add(conversion: Conversion, node: Node) -> None:
    """The bias of the product before it, a sum of two of a shape, or one that broadcasts."""
    shape = _output(conversion, node)
    for name, other in (node.inputs, node.inputs[::-1]):
        same = conversion.shape(name) == conversion.shape(node.outputs[0])
        if same and other in conversion.graph.constants and conversion.fold(node, name, conversion.value(other)):
            return
    values = [conversion.value(name) for name in node.inputs]
    inputs = tuple(value.elementwise() for value in values)
    if all(tensor.shape == shape for tensor in inputs):
        conversion.emit(node, "add", inputs, shape)
    else:
        conversion.emit(node, "elementwise", inputs, shape, {"operations": {"add": 1}})


@handles("Relu")
def _relu(conversion: Conversion, node: Node) -> None:
    _unary(conversion, node, "relu", {"alpha": 0.0})


@handles("Gelu")
def _gelu(conversion: Conversion, node: Node) -> None:
    _unary(conversion, node, "gelu", {})


@handles(*ELEMENTWISE)
def _elementwise(conversion: Conversion, node: Node) -> None:
    _emit_elementwise(conversion, node, ELEMENTWISE[node.op])


@handles(*PAIRWISE)
def _pairwise(conversion: Conversion, node: Node) -> None:
    if len(node.inputs) == 1:
        return conversion.view(node, conversion.value(node.inputs[0]))
    return _emit_elementwise(conversion, node, {PAIRWISE[node.op]: len(node.inputs) - 1})


@handles("Pow")
def _power(conversion: Conversion, node: Node) -> None:
    exponent = conversion.graph.values.get(node.inputs[1])
    constant = float(exponent.flat[0]) if exponent is not None and exponent.size == 1 else math.nan
    _emit_elementwise(conversion, node, POWERS.get(constant, {"pow": 1}))


@handles("Softmax")
def _softmax(conversion: Conversion, node: Node) -> None:
    """Over one axis; before version 13 over all axes from that one on."""
    source = conversion.value(node.inputs[0])
    newer = conversion.graph.opset >= 13
    axis = _axis(node, source, -1 if newer else 1)
    width = source.shape[axis] if newer else math.prod(source.shape[axis:])
    rows = math.prod(source.shape) // width
    tokens = source.shape[-2] if newer and axis == len(source.shape) - 1 and len(source.shape) > 1 else rows
    seen = (rows // tokens, tokens, width)
    conversion.emit(node, "softmax", (source.as_shape(*seen),), seen, {"causal": False})


@handles("LayerNormalization")
def _layernorm(conversion: Conversion, node: Node) -> None:
    _normalize(conversion, node, "layernorm", node.inputs[1:3])


@handles("RMSNormalization")
def _rmsnorm(conversion: Conversion, node: Node) -> None:
    _normalize(conversion, node, "rmsnorm", node.inputs[1:2])


@handles("MaxPool", "AveragePool")
def _window_pool(conversion: Conversion, node: Node) -> None:
    source, shape = conversion.value(node.inputs[0]), _output(conversion, node)
    kernel = list(node.attributes["kernel_shape"])
    window = _square_window(node, list(source.shape[2:]), kernel, shape[2:])
    if node.op == "MaxPool" and window is not None:
        conversion.emit(node, "window_max_pool", (source.as_shape(*source.shape),), shape, window)
    else:
        _reduce(conversion, node, "add" if node.op == "AveragePool" else "compare", math.prod(kernel), shape)


@handles("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(conversion: Conversion, node: Node) -> None:
    source = conversion.value(node.inputs[0])
    _pool(conversion, node, source, "average_pool" if node.op == "GlobalAveragePool" else "max_pool")


@handles(*REDUCTIONS)
def _reduction(conversion: Conversion, node: Node) -> None:
    source, shape = conversion.value(node.inputs[0]), conversion.shape(node.outputs[0])
    window = math.prod(source.shape) // math.prod(shape)
    if window == 1:
        conversion.view(node, source)
    elif node.op in ("ReduceMean", "ReduceMax") and _pools(conversion, node, len(source.shape)):
        _pool(conversion, node, source, "average_pool" if node.op == "ReduceMean" else "max_pool")
    else:
        _reduce(conversion, node, REDUCTIONS[node.op], window, _output(conversion, node))


def _output(conversion: Conversion, node: Node) -> tuple[int, ...]:
    """Shape of the first output, a scalar as ``[1]``."""
    return conversion.shape(node.outputs[0]) or (1,)


def _axis(node: Node, source: Value, default: int) -> int:
    """The axis that the node names, from 0 up."""
    if not source.shape:
        raise ValueError(f"{node.inputs[0]!r} is a scalar, which has no axis")
    return int(node.attributes.get("axis", default)) % len(source.shape)


def _unary(conversion: Conversion, node: Node, kind: str, attrs: dict[str, Any]) -> None:
    source, shape = conversion.value(node.inputs[0]), _output(conversion, node)
    conversion.emit(node, kind, (source.as_shape(*shape),), shape, attrs)


def _emit_elementwise(conversion: Conversion, node: Node, operations: Mapping[str, int]) -> None:
    inputs = tuple(conversion.value(name).elementwise() for name in node.inputs if name)
    conversion.emit(node, "elementwise", inputs, _output(conversion, node), {"operations": dict(operations)})


def _normalize(conversion: Conversion, node: Node, kind: str, vectors: tuple[str, ...]) -> None:
    source = conversion.value(node.inputs[0])
    axis = _axis(node, source, -1)
    width = math.prod(source.shape[axis:])
    seen = (math.prod(source.shape) // width, width)
    parameters = (conversion.value(name).as_shape(width) for name in vectors)
    conversion.emit(node, kind, (source.as_shape(*seen), *parameters), seen)


def _reduce(conversion: Conversion, node: Node, operation: str, window: int, shape: tuple[int, ...]) -> None:
    source = conversion.value(node.inputs[0])
    mean = node.op in ("AveragePool", "ReduceMean", "GlobalAveragePool")
    attrs = {"operation": operation, "window": window, "mean": mean}
    conversion.emit(node, "reduction", (source.elementwise(),), shape, attrs)


def _pools(conversion: Conversion, node: Node, rank: int) -> bool:
    """Whether a reduction is over all tokens of ``[B, N, C]`` or all positions of ``[B, C, H, W]``."""
    axes = node.attributes.get("axes")
    if axes is None and node.has_input(1):
        axes = conversion.graph.values.get(node.inputs[1])
    reduced = set() if axes is None else {int(axis) % rank for axis in axes}
    return (rank, reduced) in ((3, {1}), (4, {2, 3}))


def _pool(conversion: Conversion, node: Node, source: Value, kind: str) -> None:
    """Tokens ``[B, N, C]`` or maps ``[B, C, ...]`` to ``[B, C]``."""
    if len(source.shape) < 3:
        raise ValueError(f"{node.inputs[0]!r} has shape {list(source.shape)}, expected [B, C, ...]")
    batch, channels, *sides = source.shape
    if len(sides) == 1 and node.op.startswith("Reduce"):
        channels, seen = sides[0], source.shape
    else:
        seen = (batch, channels, sides[0], math.prod(sides[1:]))
    conversion.emit(node, kind, (source.as_shape(*seen),), (batch, channels))


def _list(node: Node, key: str, axes: int, default: int = 1) -> list[int]:
    return list(node.attributes.get(key, [default] * axes))


def _square_window(
    node: Node, sides: list[int], kernel: list[int], positions: tuple[int, ...]
) -> dict[str, int] | None:
    """Kernel, stride and padding of a window that is the same along both axes of a map; None of another.

    Padding on one side only is written as padding on both where that leaves as many positions.
    """
    strides, dilations = _list(node, "strides", len(kernel)), _list(node, "dilations", len(kernel))
    if len(kernel) != 2 or len({*kernel}) > 1 or len({*strides}) > 1 or {*dilations} != {1}:
        return None
    padding = max(_list(node, "pads", 4, 0))
    if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        missing = (positions[0] - 1) * strides[0] + kernel[0] - sides[0]
        padding = -(-max(missing, 0) // 2)
    fits = all(window_positions(a, kernel[0], strides[0], padding) == b for a, b in zip(sides, positions, strict=True))
    if padding >= kernel[0] or not fits:
        return None
    return {"kernel": kernel[0], "stride": strides[0], "padding": padding}
