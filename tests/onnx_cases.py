"""ONNX models as exporters write them, built node by node; weights have shapes but no values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Model:
    """Nodes in order; a node's result has its name."""

    def __init__(self, opset: int = 20) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.domains: list[str] = []

    def input(self, name: str, *shape: int | str | None, dtype: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def weight(self, name: str, *shape: int, dtype: int = FLOAT) -> str:
        """A parameter in a file beside the model, which is not there."""
        tensor = TensorProto(name=name, data_type=dtype, dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="weights.bin")
        self.initializers.append(tensor)
        return name

    def constant(self, name: str, values: Any, dtype: type = np.int64) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def add(self, op: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        """Append a node and return its first output; further ones are ``name:1``, ..."""
        name = name or f"{op}_{len(self.nodes)}"
        names = [name, *(f"{name}:{number}" for number in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return name

    def linear(self, name: str, source: str, inputs: int, outputs: int) -> str:
        """``x W + b`` as PyTorch exports it for inputs of three axes."""
        product = self.add("MatMul", source, self.weight(f"{name}.weight", inputs, outputs), name=f"{name}/MatMul")
        return self.add("Add", self.weight(f"{name}.bias", outputs), product, name=f"{name}/Add")

    def norm(self, name: str, source: str, width: int) -> str:
        gain, shift = (self.weight(f"{name}.{part}", width) for part in ("weight", "bias"))
        return self.add("LayerNormalization", source, gain, shift, name=name, axis=-1)

    def convolution(self, name: str, source: str, inputs: int, outputs: int, kernel: int, stride: int) -> str:
        """A convolution without bias and its batch norm."""
        weight = self.weight(f"{name}.weight", outputs, inputs, kernel, kernel)
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        result = self.add("Conv", source, weight, name=name, **window)
        vectors = [self.weight(f"{name}.bn.{part}", outputs) for part in ("scale", "shift", "mean", "variance")]
        return self.add("BatchNormalization", result, *vectors, name=f"{name}.bn")

    def proto(self, *outputs: str) -> onnx.ModelProto:
        results = [onnx.ValueInfoProto(name=name) for name in outputs or (self.nodes[-1].output[0],)]
        graph = helper.make_graph(self.nodes, "model", self.inputs, results, self.initializers)
        opsets = [helper.make_opsetid(domain, 1) for domain in self.domains]
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset), *opsets],
            functions=self.functions,
            ir_version=9,
        )

    def save(self, path: Path, *outputs: str) -> Path:
        path.write_bytes(self.proto(*outputs).SerializeToString())
        return path


def vit(layers: int, heads: int, width: int, ffn: int, patch: int, size: int, classes: int, batch: int) -> Model:
    """A vision transformer of pre-norm blocks: fused QKV, heads by reshape, transpose and split."""
    model = Model()
    tokens, head = (size // patch) ** 2 + 1, width // heads
    images = model.input("images", batch, 3, size, size)
    kernel = (model.weight("patch.weight", width, 3, patch, patch), model.weight("patch.bias", width))
    hidden = model.add("Conv", images, *kernel, kernel_shape=[patch] * 2, strides=[patch] * 2)
    hidden = model.add("Reshape", hidden, model.constant("flat", [batch, width, -1]))
    hidden = model.add("Transpose", hidden, perm=[0, 2, 1])
    token = model.add("Expand", model.weight("class", 1, 1, width), model.constant("times", [batch, 1, 1]))
    hidden = model.add("Concat", token, hidden, axis=1)
    hidden = model.add("Add", hidden, model.weight("positions", 1, tokens, width), name="positioned")
    scale = model.constant("scale", head**0.5, np.float32)
    parts = model.constant("parts", [batch, tokens, 3, heads, head])
    whole = model.constant("whole", [batch, tokens, width])
    thirds, first = model.constant("thirds", [1, 1, 1]), model.constant("first", [0])
    for layer in range(layers):
        normed = model.norm(f"block{layer}.norm1", hidden, width)
        qkv = model.add("Reshape", model.linear(f"block{layer}.qkv", normed, width, 3 * width), parts)
        qkv = model.add("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        split = model.add("Split", qkv, thirds, outputs=3, axis=0)
        queries, keys, values = (model.add("Squeeze", one, first) for one in (split, f"{split}:1", f"{split}:2"))
        keys = model.add("Transpose", keys, perm=[0, 1, 3, 2])
        logits = model.add("Div", model.add("MatMul", queries, keys, name=f"block{layer}.logits"), scale)
        attended = model.add("MatMul", model.add("Softmax", logits, axis=-1), values, name=f"block{layer}.attend")
        attended = model.add("Reshape", model.add("Transpose", attended, perm=[0, 2, 1, 3]), whole)
        hidden = model.add("Add", hidden, model.linear(f"block{layer}.projection", attended, width, width))
        normed = model.norm(f"block{layer}.norm2", hidden, width)
        inner = model.add("Gelu", model.linear(f"block{layer}.ffn1", normed, width, ffn))
        hidden = model.add("Add", hidden, model.linear(f"block{layer}.ffn2", inner, ffn, width))
    hidden = model.norm("norm", hidden, width)
    pooled = model.add("Gather", hidden, model.constant("zero", 0), axis=1)
    model.add("Gemm", pooled, model.weight("head.weight", classes, width), model.weight("head.bias", classes), transB=1)
    return model


def resnet(blocks: tuple[int, ...], classes: int, size: int, batch: int) -> Model:
    """A residual network of bottleneck blocks, each convolution with its batch norm."""
    model = Model(opset=13)
    images = model.input("images", batch, 3, size, size)
    hidden = model.add("Relu", model.convolution("stem", images, 3, 64, 7, 2))
    hidden = model.add("MaxPool", hidden, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 256 << stage
        for block in range(count):
            name, stride = f"stage{stage}.block{block}", 2 if stage and not block else 1
            inner = model.add("Relu", model.convolution(f"{name}.conv1", hidden, inputs, width // 4, 1, 1))
            inner = model.add("Relu", model.convolution(f"{name}.conv2", inner, width // 4, width // 4, 3, stride))
            inner = model.convolution(f"{name}.conv3", inner, width // 4, width, 1, 1)
            if not block:
                hidden = model.convolution(f"{name}.shortcut", hidden, inputs, width, 1, stride)
            hidden = model.add("Relu", model.add("Add", inner, hidden))
            inputs = width
    pooled = model.add("Flatten", model.add("GlobalAveragePool", hidden))
    head = model.weight("head.weight", classes, inputs), model.weight("head.bias", classes)
    model.add("Gemm", pooled, *head, transB=1)
    return model
