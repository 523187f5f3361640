"""An operator trace on the NPU: blocks of alike layers as parts, tensors placed by their lifetimes; and inference of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from neupims_sim.config import Config, ImagesConfig, ResnetConfig, TraceFileConfig, VitConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.allocation import Allocation, allocate, lifetimes
from neupims_sim.mapping.operators import less_scratchpad
from neupims_sim.mapping.phases import map_phase
from neupims_sim.mapping.pim_pooling import PoolingLayout
from neupims_sim.mapping.placement import Placement
from neupims_sim.simulation.device import Device, Process
from neupims_sim.simulation.effort import check_effort
from neupims_sim.simulation.operators import OperatorRunner
from neupims_sim.simulation.outcome import Outcome
from neupims_sim.simulation.parts import Part, run_extrapolated
from neupims_sim.simulation.pim_pooling import PimPooling
from neupims_sim.trace import Operator, Tensor, Trace, read_trace
from neupims_sim.workloads import generate_resnet, generate_vit


@dataclass(frozen=True)
class Segment:
    """Consecutive operators that are repeated equally often, as one block of alike layers."""

    operators: tuple[Operator, ...]
    simulated: int
    """Repetitions that get weights of their own addresses."""

    @property
    def repeat(self) -> int:
        """How many layers."""
        return self.operators[0].repeat

    @property
    def own_weights(self) -> bool:
        """Whether every repetition has weights of its own, as layers do."""
        return not any(operator.attrs.get("shared_weights", False) for operator in self.operators)

    def own(self) -> dict[str, int]:
        """Bytes of each weight, and of each cache of keys or values, of one layer."""
        views: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for operator in self.operators:
            for tensor in (*operator.inputs, *operator.outputs):
                if tensor.role in ("weight", "kv_cache"):
                    views[_own_name(tensor)][tensor.name] = tensor.bytes
        return {name: sum(sizes.values()) for name, sizes in views.items()}


def segments(operators: Sequence[Operator], layers: int, alone: Callable[[Operator], bool]) -> list[Segment]:
    """Cut a trace where ``repeat`` changes, and around operators that stay ``alone``; of each ``layers`` are simulated."""
    groups: list[list[Operator]] = []
    for _, run in groupby(operators, key=lambda operator: operator.repeat):
        for single, members in groupby(run, key=alone):
            found = list(members)
            groups += [[operator] for operator in found] if single else [found]
    return [Segment(tuple(group), min(group[0].repeat, layers)) for group in groups]


class TraceOnNpu:
    """The operators of a trace as parts of the work of one device's NPU.

    Parameters
    ----------
    phases: the operators in order, cut into phases.
    index: of the sub-batch; it sets its activations apart from those of other sub-batches with the same weights.
    on_pim: operators that something else runs, in a part of their own.
    sub_batches: that share the scratchpad.
    """

    def __init__(
        self,
        config: Config,
        phases: Sequence[Sequence[Operator]],
        index: int = 0,
        on_pim: Callable[[Operator], bool] = lambda _: False,
        sub_batches: int = 1,
    ) -> None:
        cut = [segments(operators, _simulated(config), on_pim) for operators in phases]
        operators = [operator for phase in phases for operator in phase]
        self.segments = [segment for phase in cut for segment in phase]
        self._phase_lengths = [len(phase) for phase in cut]
        organization = config.memory.organization
        self.activations: Allocation = allocate(lifetimes(operators), organization.channels * organization.row_bytes)
        self._operators = operators
        self._owned: dict[str, int] = {}
        self._copies: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        for segment in self.segments:
            for name, size in segment.own().items():
                copies, more = (
                    (segment.simulated, segment.repeat - segment.simulated) if segment.own_weights else (1, 0)
                )
                self._owned[name] = size
                self._copies[name] = max(copies, self._copies.get(name, 0))
                self._left_out[name] = max(more * size, self._left_out.get(name, 0))
        self._config = config
        self._index = index
        self._on_pim = on_pim
        self._sub_batches = sub_batches

    def tensors(self) -> dict[str, int]:
        """Bytes of everything that needs an address, by name: what each simulated layer owns, state, and one region of activations."""
        sizes = {f"{copy}.{name}": size for name, size in self._owned.items() for copy in range(self._copies[name])}
        sizes |= {t.name: t.bytes for operator in self._operators for t in operator.inputs if t.role == "state"}
        return sizes | {f"activations of {self._index}": max(1, self.activations.size_bytes)}

    def reserved_bytes(self) -> int:
        """Weights and caches of the layers that are not simulated."""
        return sum(self._left_out.values())

    def parts(
        self, device: Device, placement: Placement, elsewhere: Callable[[Operator, OperatorRunner], Part] | None = None
    ) -> list[list[Part]]:
        """Per phase one part per segment; ``elsewhere`` gives those of operators that are not for the NPU."""
        runner = OperatorRunner(device, self._index, lambda tensor, layer: self._address(placement, tensor, layer))
        parts = iter(
            [
                elsewhere(segment.operators[0], runner)
                if elsewhere is not None and self._stays_alone(segment)
                else self._part(device, runner, number, segment)
                for number, segment in enumerate(self.segments)
            ]
        )
        return [list(islice(parts, length)) for length in self._phase_lengths]

    def _part(self, device: Device, runner: OperatorRunner, number: int, segment: Segment) -> Part:
        bandwidth = device.memory.capabilities.peak_bytes_per_cycle
        later = self._needed_after(number)
        npu = self._config.npu
        if self._config.mapping.hold_residents:
            npu = less_scratchpad(npu, npu.scratchpad_bytes - npu.scratchpad_bytes // self._sub_batches)
        works = map_phase(segment.operators, later, npu, self._config.mapping, bandwidth).works

        def run(count: int, finished: Callable[[], None]) -> Process:
            for layer in range(count):
                yield from runner.run(works, layer)
                finished()

        names = segment.operators[0].name, segment.operators[-1].name
        return Part(
            names[0] if len(segment.operators) == 1 else " to ".join(names), segment.repeat, segment.simulated, run
        )

    def _stays_alone(self, segment: Segment) -> bool:
        return len(segment.operators) == 1 and self._on_pim(segment.operators[0])

    def _needed_after(self, number: int) -> frozenset[str]:
        """Tensors that a segment writes to memory: what others read, or the next layer, or nobody, for it is a result."""
        inside = self.segments[number].operators
        read_inside = {tensor.whole for operator in inside for tensor in operator.inputs}
        read_outside = {
            tensor.whole
            for other, segment in enumerate(self.segments)
            if other != number
            for operator in segment.operators
            for tensor in operator.inputs
        }
        written = {tensor.whole for operator in inside for tensor in operator.outputs}
        return frozenset(name for name in written if name in read_outside or name not in read_inside)

    def _address(self, placement: Placement, tensor: Tensor, layer: int) -> int:
        if tensor.role in ("weight", "kv_cache"):
            name = _own_name(tensor)
            return placement.address(f"{layer % self._copies[name]}.{name}")
        if tensor.role == "state":
            return placement.address(tensor.name)
        return placement.address(f"activations of {self._index}") + self.activations.offsets[tensor.whole]


def _simulated(config: Config) -> int:
    """Of layers that are alike, how many are simulated: two at least, of which the second starts as all others do."""
    return max(2, config.simulation.layers)


def _own_name(tensor: Tensor) -> str:
    """What a layer owns is known by: a weight by its name, all views of a cache by that of the whole."""
    return tensor.name if tensor.role == "weight" else tensor.whole


def simulate_images(device: Device) -> Outcome:
    """One inference on a batch of images."""
    return _simulate_trace(device, images_trace(device.config), "images")


def images_trace(config: Config) -> Trace:
    """The operators of an inference on the configured images."""
    model, workload = config.model, config.workload
    assert isinstance(workload, ImagesConfig)
    size, batch, head = workload.image_size, workload.batch_size, workload.head
    if isinstance(model, VitConfig):
        return generate_vit(
            model,
            image_size=size,
            batch=batch,
            pooling=workload.pooling,
            groups=workload.groups,
            head=head,
            dtype=config.npu.dtype,
        )
    assert isinstance(model, ResnetConfig)
    return generate_resnet(model, image_size=size, batch=batch, head=head, dtype=config.npu.dtype)


def simulate_trace_file(device: Device) -> Outcome:
    """One execution of an operator trace."""
    workload = device.config.workload
    assert isinstance(workload, TraceFileConfig)
    return _simulate_trace(device, read_trace(workload.path), "traces")


def _simulate_trace(device: Device, trace: Trace, item: str) -> Outcome:
    pooling, on_npu, placement = _placed(device.config, trace)
    if pooling is None:
        (parts,) = on_npu.parts(device, placement)
    else:
        images = PimPooling(device, pooling, placement, trace.header.batch)
        (parts,) = on_npu.parts(device, placement, images.part)
    done = run_extrapolated(device, parts)
    if not done.total.cycle:
        raise InputError(f"{trace.header.model}: the trace has nothing to do: no operator takes any time")
    layers = sum(part.repeat for part in parts)
    return Outcome(
        seen=device.seen,
        total=done.total,
        block=done.total,
        items=trace.header.batch if item == "images" else 1,
        item=item,
        batch_size=trace.header.batch,
        interleaving="off",
        layers=layers,
        simulated_layers=sum(part.simulated for part in parts),
        simulated_cycles=device.now,
        latency_cycles=round(done.total.cycle),
        operator_cycles=done.operator_cycles,
    )


def check_trace_fits(config: Config) -> None:
    """Raise ``InputError`` if the configured images, or the operator trace, do not fit; nothing is simulated."""
    workload = config.workload
    _placed(config, read_trace(workload.path) if isinstance(workload, TraceFileConfig) else images_trace(config))


def _placed(config: Config, trace: Trace) -> tuple[PoolingLayout | None, TraceOnNpu, Placement]:
    """How tokens are pooled in the banks, if they are; the other operators; and where all tensors lie."""
    check_effort(config, trace.operators, _simulated(config))
    pooling = _pim_pooling_layout(config, trace)
    on_npu = TraceOnNpu(config, [trace.operators], on_pim=_is_pooling if pooling is not None else lambda _: False)
    rows: Mapping[str, int] = {} if pooling is None else PimPooling.rows(config, pooling, trace.header.batch)
    placement = Placement(config.memory.organization, on_npu.tensors(), on_npu.reserved_bytes(), row_regions=rows)
    return pooling, on_npu, placement


def _is_pooling(operator: Operator) -> bool:
    """Whether an operator sums over tokens [batch, tokens, channels]."""
    return operator.op in ("average_pool", "group_gem") and len(operator.inputs[0].shape) == 3


def _pim_pooling_layout(config: Config, trace: Trace) -> PoolingLayout | None:
    """How tokens lie in the banks, where they are pooled there. Raises InputError unless the trace pools tokens of one shape."""
    if config.pooling_on != "pim":
        return None
    shapes = {operator.inputs[0].shape for operator in trace.operators if _is_pooling(operator)}
    if len(shapes) != 1:
        found = "no tokens" if not shapes else f"tokens of {len(shapes)} shapes"
        raise InputError(f"pooling_on='pim': the trace pools {found}; needed: one shape [batch, tokens, channels]")
    _, tokens, channels = shapes.pop()
    return PoolingLayout.on(config.memory, tokens, channels, config.npu.element_bytes)
