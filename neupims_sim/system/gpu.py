"""A GPU as a roofline: an operator trace as kernels, and what each takes.

Every operator is a kernel which reads its inputs from the device's memory and writes its outputs there, but attention: logits,
softmax and attend of all requests (or images) that follow each other are one kernel whose logits stay on the chip, as in
FlashAttention (Dao et al., NeurIPS 2022) and the decoding kernels of serving systems. Kernels run one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from neupims_sim.config import GpuConfig, LinkConfig
from neupims_sim.errors import InputError
from neupims_sim.system.link import all_reduce_seconds
from neupims_sim.trace import ELEMENT_BYTES, Operator, Role, Tensor, flops, macs, read_bytes, write_bytes

KernelClass = Literal["gemm", "attention", "elementwise", "all_reduce"]
_INDICES = ("int32", "int64")
_ATTENTION = ("attention_logits", "softmax", "attention_attend")


@dataclass(frozen=True)
class Kernel:
    """What one launch does."""

    operators: tuple[Operator, ...]
    kind: KernelClass
    macs: int
    read_bytes: int
    write_bytes: int

    @property
    def name(self) -> str:
        """Of the operator; ``attention`` for a fused one."""
        return "attention" if self.kind == "attention" else self.operators[0].name

    @property
    def vector_flops(self) -> int:
        """FLOPs outside matrix products."""
        return sum(map(flops, self.operators)) - 2 * self.macs

    @property
    def dtype(self) -> str:
        """The format in which matrices are multiplied: the widest of theirs (8-bit weights of fp16 activations are widened).

        Wide integers are indices, and vectors are biases and gains, unless there is nothing else.
        """
        operands = [tensor for operator in self.operators if macs(operator) for tensor in operator.inputs]
        return max(operands, key=lambda t: (t.dtype not in _INDICES, len(t.shape) > 1, ELEMENT_BYTES[t.dtype])).dtype

    @property
    def repeat(self) -> int:
        """How often it is launched: once per layer of a block."""
        return self.operators[0].repeat


def kernels(operators: Sequence[Operator]) -> Iterator[Kernel]:
    """The kernels of a trace, in its order."""
    for (attention, _), group in groupby(operators, key=lambda op: (op.op in _ATTENTION, op.repeat)):
        members = tuple(group)
        if attention and any(operator.op.startswith("attention_") for operator in members):
            yield _attention(members)
        else:
            yield from map(_single, members)


def kernel_seconds(kernel: Kernel, gpu: GpuConfig, link: LinkConfig) -> float:
    """max(FLOPs / peak, bytes / bandwidth) / efficiency + launch (Williams et al., "Roofline", CACM 52(4), 2009).

    FLOPs are those of matrix products; other arithmetic hides behind memory. An all-reduce takes its time on the link, and none
    at all where links are free. Raises InputError for a number format that the GPU does not compute.
    """
    if kernel.kind == "all_reduce":
        (operator,) = kernel.operators
        seconds = all_reduce_seconds(link, operator.attrs["devices"], operator.inputs[0].bytes)
        return seconds + gpu.kernel_launch_s if seconds else 0.0
    efficiency = {
        "gemm": gpu.gemm_efficiency,
        "attention": gpu.attention_efficiency,
        "elementwise": gpu.elementwise_efficiency,
    }[kernel.kind]
    memory = (kernel.read_bytes + kernel.write_bytes) / (gpu.bandwidth_gbps * 1e9)
    return max(arithmetic_seconds(kernel, gpu), memory) / efficiency + gpu.kernel_launch_s


def arithmetic_seconds(kernel: Kernel, gpu: GpuConfig) -> float:
    """Time of the kernel's matrix products at the peak of their format."""
    return 2 * kernel.macs / kernel_peak(kernel, gpu) if kernel.macs else 0.0


def kernel_peak(kernel: Kernel, gpu: GpuConfig) -> float:
    """FLOP/s of matrix products of the kernel's format; raises InputError if the GPU has none."""
    peak = gpu.peak_flops.of(kernel.dtype)
    if peak is None:
        raise InputError(
            f"{kernel.name}: gpu {gpu.name!r} has no gpu.peak_flops.{kernel.dtype}, so it cannot compute it"
        )
    return peak


CACHE = "K and V"


def resident_bytes(operators: Iterable[Operator]) -> dict[str, int]:
    """Bytes that stay on the device, by what they are: weights, K and V of every layer, and state such as a database."""
    sizes: dict[Role, dict[str, int]] = {"weight": {}, "kv_cache": {}, "state": {}, "activation": {}}
    for operator in operators:
        layers = 1 if operator.attrs.get("shared_weights", False) else operator.repeat
        for tensor in operator.inputs:
            sizes[tensor.role][tensor.name] = tensor.bytes * (1 if tensor.role == "state" else layers)
    words: dict[str, Role] = {"weights": "weight", CACHE: "kv_cache", "state": "state"}
    return {word: sum(sizes[role].values()) for word, role in words.items()}


def check_capacity(gpu: GpuConfig, needed: dict[str, int]) -> None:
    """Raise InputError, with the numbers, where ``needed`` bytes (by what they are) exceed the memory (INV-9)."""
    total = sum(needed.values())
    if total > gpu.capacity_bytes:
        fixed = total - needed.get(CACHE, 0)
        helps = ["fewer or shorter requests"] if fixed < gpu.capacity_bytes else []
        helps += ["more devices (parallel.tensor, parallel.pipeline)", "more memory (gpu.capacity_bytes)"]
        parts = ", ".join(f"{size:,} B of {what}" for what, size in needed.items() if size)
        raise InputError(
            f"the batch does not fit: gpu {gpu.name!r} needs {total:,} B and has {gpu.capacity_bytes:,} B: {parts}; "
            f"what helps: {', '.join(helps)}"
        )


def _single(operator: Operator) -> Kernel:
    kind: KernelClass = "gemm" if macs(operator) else "elementwise"
    if operator.op == "all_reduce":
        return Kernel((operator,), "all_reduce", 0, 0, 0)
    read, written = sum(read_bytes(operator).values()), sum(write_bytes(operator).values())
    return Kernel((operator,), kind, macs(operator), read, written)


def _attention(operators: tuple[Operator, ...]) -> Kernel:
    """What a member writes and another reads stays on the chip."""
    inside = {tensor.name for operator in operators for tensor in operator.outputs}
    read_inside = {tensor.name for operator in operators for tensor in operator.inputs} & inside
    read = _unique(t for operator in operators for t in operator.inputs if t.name not in inside)
    written = _unique(t for operator in operators for t in operator.outputs if t.name not in read_inside)
    return Kernel(operators, "attention", sum(map(macs, operators)), read, written)


def _unique(tensors: Iterable[Tensor]) -> int:
    """Total bytes, a tensor once however many operators name it."""
    return sum({tensor.name: tensor.bytes for tensor in tensors}.values())
