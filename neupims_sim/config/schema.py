"""The typed configuration tree: what can be configured, in which unit, and within which bounds.

Every class is frozen and rejects unknown keys. Nothing here computes a simulation result; a field that is a
modelling assumption rather than a property of hardware says so, and the presets (``configs/presets``) set it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from neupims_sim.config.bounds import (
    MOST_EXACT,
    Bandwidth,
    Bytes,
    Classes,
    Clock,
    Count,
    Cycles,
    FlopRate,
    Images,
    ImageSize,
    Layers,
    Name,
    Nanoseconds,
    Number,
    PathText,
    Picojoules,
    PositiveCycles,
    Queries,
    Requests,
    Seed,
    Share,
    Tokens,
    Vectors,
    Whole,
    Width,
)
from neupims_sim.config.memory import MemoryConfig
from neupims_sim.config.serving import ServingConfig
from neupims_sim.showing import Shown


class Section(Shown, BaseModel):
    """Base of every configuration section: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Section):
    """A transformer decoder.

    ``kv_heads < heads`` is grouped-query attention; ``ffn: gated`` is SwiGLU with three matrices.
    """

    name: Name
    family: Literal["decoder"] = "decoder"
    layers: Layers
    heads: Width
    kv_heads: Width
    d_model: Width
    d_ff: Annotated[int, Whole(1, 2**22)]
    vocabulary: Classes
    head_size: Width
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    ffn: Literal["plain", "gated"] = "plain"
    activation: Literal["gelu", "silu"] = "gelu"
    position: Literal["learned", "rotary"] = "learned"
    bias: bool = True
    """Whether linear layers carry a bias vector."""
    max_positions: Tokens = 2048
    """Longest context the model supports, tokens."""

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = dict(values)
            heads, width = values.get("heads"), values.get("d_model")
            if "kv_heads" not in values and heads is not None:
                values["kv_heads"] = heads
            if "head_size" not in values and isinstance(heads, int) and isinstance(width, int) and heads > 0:
                if width % heads:
                    raise ValueError(f"model.d_model={width} is not a multiple of model.heads={heads}")
                values["head_size"] = width // heads
        return values


class VitConfig(Section):
    """A vision transformer (Dosovitskiy et al., arXiv 2010.11929): pre-norm encoder blocks, one class token."""

    name: Name
    family: Literal["vit"]
    layers: Layers
    heads: Width
    d_model: Width
    d_ff: Annotated[int, Whole(1, 2**22)]
    patch: Annotated[int, Whole(1, 4_096)]
    """Height and width of a patch, pixels."""
    classes: Classes = 1000
    """Outputs of the classifier."""

    @model_validator(mode="after")
    def _check(self) -> VitConfig:
        if self.d_model % self.heads:
            raise ValueError(f"model.d_model={self.d_model} is not a multiple of model.heads={self.heads}")
        return self


ResnetBlocks = Annotated[int, Whole(1, 1_000)]
"""Of one stage; ResNet-152 has 36."""


class ResnetConfig(Section):
    """A residual network of bottleneck blocks (He et al., arXiv 1512.03385)."""

    name: Name
    family: Literal["resnet"]
    blocks: tuple[ResnetBlocks, ResnetBlocks, ResnetBlocks, ResnetBlocks]
    """Blocks of each stage."""
    classes: Classes = 1000
    """Outputs of the classifier."""


AnyModel = ModelConfig | VitConfig | ResnetConfig
"""A model of any family; ``family`` says which."""


class WarmupConfig(Section):
    """How a steady-state batch is produced: running requests advance one token per iteration, finished ones are replaced."""

    iterations: Annotated[int, Whole(0, 1_000_000)] = 4000
    """Iterations before the snapshot; the mean context is stationary after a few output lengths."""
    max_context_tokens: Tokens = 2048
    """Contexts are capped at this length, tokens."""


class IndexConfig(Section):
    """A database of global descriptors in the device's memory, and how it is searched."""

    database: Vectors = 1_000_000
    """Vectors."""
    dimensions: Width = 2048
    """Elements of a vector."""
    top_m: Vectors = 400
    """Results of a query, M."""

    @model_validator(mode="after")
    def _check(self) -> IndexConfig:
        if self.top_m > self.database:
            raise ValueError(f"top_m={self.top_m} is more than database={self.database} vectors")
        return self


class BackgroundSearchConfig(IndexConfig):
    """Searches on the same device beside the work that is measured; the next query starts when one ends."""

    in_flight: Annotated[int, Whole(1, 256)] = 1
    """Queries at a time."""
    turn: Literal["first", "last"] = "last"
    """Where both want PIM on a channel: whether a search goes before or after the work that is measured."""


class WorkloadConfig(Section):
    """What is served: a batch of requests to a language model in one phase."""

    name: Name
    kind: Literal["llm"] = "llm"
    dataset: Name = "sharegpt"
    """Stem of a length table in ``traces/lengths``."""
    batch_size: Requests = 256
    """Requests per iteration of the whole system, or of a pipeline stage (``parallel.batch``)."""
    phase: Literal["decode", "prefill"] = "decode"
    requests: PathText | None = None
    """Path of a request batch CSV (``seq_len,ch_idx``); overrides dataset and batch_size."""
    context_tokens: Tokens | None = None
    """Tokens of every request, the one of this iteration included, in place of lengths drawn from the dataset."""
    warmup: WarmupConfig = WarmupConfig()
    lm_head: bool = False
    """Whether the trace includes the embedding and the LM head besides the decoder blocks."""
    background: BackgroundSearchConfig | None = None
    """Retrieval that shares the device."""


Pooling = Literal["cls", "average", "max", "gem", "ggem"]


class ImagesConfig(Section):
    """A batch of images through a vision model."""

    name: Name
    kind: Literal["images"]
    batch_size: Images = 64
    """Images per inference."""
    image_size: ImageSize = (224, 224)
    pooling: Pooling = "cls"
    """Of the tokens of a ViT after the final norm; all but ``cls`` pool the patch tokens. A ResNet has its own."""
    groups: Width | None = None
    """Exponents of ``pooling: ggem``; one per head unless given."""
    head: Literal["classifier", "descriptor"] = "classifier"
    """What is asked of the model: classes, or the global descriptor (of a ResNet as SuperGlobal extracts it)."""


class RetrievalConfig(IndexConfig):
    """Queries with images, or with descriptors, against a database: extract, search, rerank."""

    name: Name
    kind: Literal["retrieval"]
    queries: Queries = 1
    """Queries that go through each step together."""
    extract: bool = True
    """Whether the queries are images from which ``model`` extracts the descriptors."""
    image_size: ImageSize = (768, 1024)
    pooling: Pooling = "ggem"
    """Of a ViT as extractor."""
    rerank: Literal["superglobal", "cvnet", "rrt", "none"] = "superglobal"


class TraceFileConfig(Section):
    """An operator trace, as it is."""

    name: Name
    kind: Literal["trace"]
    path: PathText
    """The trace file."""


AnyWorkload = WorkloadConfig | ImagesConfig | RetrievalConfig | TraceFileConfig
"""A workload of any kind; ``kind`` says which."""


class LinkConfig(Section):
    """What joins the devices: every one has one link, over which it sends and receives at the same time."""

    topology: Literal["none", "ring", "tree"] = "none"
    """How an all-reduce goes; ``none``: links are free (assumption, as in the published NeuPIMs artifact)."""
    bandwidth_gbps: Bandwidth | None = None
    """GB/s (10^9 bytes) per direction and device."""
    latency_ns: Nanoseconds = 0.0
    """Of one hop."""


class ParallelConfig(Section):
    """How the model is divided over devices."""

    tensor: Count = 1
    pipeline: Count = 1
    micro_batches: Count | None = None
    """Batches that are in the pipeline at a time; as many as there are stages unless given."""
    batch: Literal["split", "per_stage"] = "split"
    """split: the requests of the workload divide into the micro-batches; per_stage: every micro-batch has as many as the
    workload states, so that the system serves ``micro_batches`` times as many."""
    link: LinkConfig = LinkConfig()

    @property
    def devices(self) -> int:
        """Of the whole system."""
        return self.tensor * self.pipeline

    @property
    def in_words(self) -> str:
        """``8 devices (tensor 4 x pipeline 2)``."""
        if self.devices == 1:
            return "1 device"
        degrees = [f"{key} {getattr(self, key)}" for key in ("tensor", "pipeline") if getattr(self, key) > 1]
        return f"{self.devices} devices ({' x '.join(degrees)})"


class SchedulingConfig(Section):
    """Who runs what, when. Every field is the name of a registered policy or a literal."""

    interleaving: Name = "auto"
    """Sub-batch interleaving: ``off``; ``lockstep``, the stages A..F with a barrier after each; ``dataflow``, true
    dependencies only; ``auto``, the best known rule; or another registered policy."""
    auto_min_batch: Annotated[int, Whole(1, MOST_EXACT)] = 256
    """``interleaving: auto`` interleaves from this batch size up (NeuPIMs paper, section 8)."""
    channel_assignment: Name = "gmlbp"
    partition: Name = "positional"
    request_order: Literal["drawn", "file"] = "drawn"
    """In which order the rows of ``workload.requests`` came, which policies go by. drawn: by chance, whatever the order of the
    file; file: rows with a channel of their own (``ch_idx``) are the slots of a server, as in the published artifact (assumption);
    when the batch is divided into micro-batches always drawn."""
    barrier: Literal["operator", "request"] = "request"
    """operator: an attention step of all requests ends before the next starts; request: each request on its own."""
    load_gwrite_cycles: PositiveCycles = 100
    """G of the load estimate (NeuPIMs Algorithm 1), cycles per GWRITE."""
    load_tile_cycles: PositiveCycles = 184
    """T of the load estimate (NeuPIMs Algorithm 1), cycles per PIM tile."""


class SystolicConfig(Section):
    """The systolic arrays."""

    arrays: Count = 8
    rows: Count = 128
    columns: Count = 128
    dataflow: Literal["ws", "os", "is"] = "ws"
    """Weight, output or input (activation) stationary."""
    preload: Literal["overlapped", "serial"] = "overlapped"
    """Whether the next stationary block is shifted in while the current one streams."""
    convention: Literal["scale_sim", "physical"] = "physical"
    """What the end of a product is: physical, the cycles from the first operand to the last sum; scale_sim, the index of
    the last of them, one less, as SCALE-Sim reports it."""
    sharing: Name = "split_n"
    """How the arrays share one GEMM (a registered policy): ``split_n``, ``split_m``, ``best``, ``fused``."""


class VectorConfig(Section):
    """The vector units. Costs are cycles per vector of ``lanes`` elements (throughput, pipelined)."""

    units: Count = 8
    lanes: Count = 128
    add_cycles: Cycles = 1
    multiply_cycles: Cycles = 1
    compare_cycles: Cycles = 1
    divide_cycles: Cycles = 4
    sqrt_cycles: Cycles = 4
    exp_cycles: Cycles = 4
    log_cycles: Cycles = 4
    pow_cycles: Cycles = 9
    """x^p = exp(p log x)."""
    tanh_cycles: Cycles = 4
    reduce_cycles: Cycles = 1
    """One pass of the adder tree over ``lanes`` elements."""
    pipeline_latency_cycles: Cycles = 8
    """Fill and drain of one operator on one unit."""
    cost_model: Literal["lanes", "asplos24"] = "lanes"
    """lanes: passes x cost over all units; asplos24: the latencies of the published artifact (assumption)."""


class MacEnergyConfig(Section):
    """Energy of a multiply-accumulate by the format of its operands, pJ; a number alone is that of ``float16``.

    A multiply and an fp32 add of 0.9 pJ at 45 nm (Horowitz, ISSCC 2014, "Computing's energy problem").
    """

    float8: Picojoules = 1.1
    """Multiply 0.2, that of int8: the source has none for fp8, whose significands are shorter (assumption)."""
    float16: Picojoules = 2.0
    """Multiply 1.1."""
    float32: Picojoules = 4.6
    """Multiply 3.7."""

    @model_validator(mode="before")
    @classmethod
    def _of_float16(cls, value: Any) -> Any:
        return _as_float16(value)


class VectorEnergyConfig(Section):
    """Energy of one lane in one cycle by the format of its elements, pJ; a number alone is that of ``float16``.

    As much as a multiply of the format (source as of :class:`MacEnergyConfig`).
    """

    float8: Picojoules = 1.1
    """Vector units compute fp8 data in fp16 (assumption)."""
    float16: Picojoules = 1.1
    float32: Picojoules = 3.7

    @model_validator(mode="before")
    @classmethod
    def _of_float16(cls, value: Any) -> Any:
        return _as_float16(value)


def _as_float16(value: Any) -> Any:
    """A figure per number format, where it is written as one number."""
    return {"float16": value} if isinstance(value, int | float | str) and not isinstance(value, bool) else value


class NpuEnergyConfig(Section):
    """Energy of one event, pJ."""

    mac_pj: MacEnergyConfig = MacEnergyConfig()
    vector_operation_pj: VectorEnergyConfig = VectorEnergyConfig()
    sram_pj_per_byte: Picojoules = 12.5
    """Scratchpad and accumulator: 100 pJ per 64 bit of a 1 MB SRAM (same source)."""
    register_pj_per_byte: Picojoules = 0.015
    """0.03 pJ per 16 bit of a 16 B register file, 28 nm (Yang et al., Interstellar, ASPLOS 2020)."""


NPU_FORMATS: Mapping[int, str] = {1: "float8", 2: "float16", 4: "float32"}
"""The number format, by its trace's name, of elements of so many bytes."""


class NpuConfig(Section):
    """The NPU: systolic arrays, vector units, on-chip buffers, DMA."""

    name: Name
    systolic: SystolicConfig = SystolicConfig()
    vector: VectorConfig = VectorConfig()
    scratchpad_bytes: Bytes = 8 * 2**20
    """Weights and activations, all arrays together; half of it when double buffered holds the tile being computed."""
    accumulator_bytes: Bytes = 8 * 2**20
    """Partial sums, all arrays together."""
    accumulator_element_bytes: Annotated[int, Whole(1, 16)] = 4
    """Partial sums are kept in fp32."""
    element_bytes: Literal[1, 2, 4] = 2
    """Of weights, activations, K and V: fp8, fp16 or fp32, also of what a GPU computes. The cells of the arrays and the
    multipliers of PIM are as many in every format."""
    energy: NpuEnergyConfig = NpuEnergyConfig()
    double_buffered: bool = True
    dma_transfer_latency_cycles: Cycles = 0
    """Fixed cost of starting a DMA transfer, cycles."""

    @property
    def dtype(self) -> str:
        """The trace's name of the number format."""
        return NPU_FORMATS[self.element_bytes]


class GpuPeakConfig(Section):
    """Peaks of matrix products by the format of their operands, without sparsity, FLOP/s; a number alone is that of ``float16``.

    What is not given the GPU cannot compute.
    """

    float16: FlopRate
    """And bfloat16: tensor cores."""
    float8: FlopRate | None = None
    """Tensor cores."""
    int8: FlopRate | None = None
    """Tensor cores; 8-bit operands of any kind, where there is no figure for ``float8``."""
    float32: FlopRate | None = None
    """Outside the tensor cores, which would round the operands."""

    @model_validator(mode="before")
    @classmethod
    def _of_float16(cls, value: Any) -> Any:
        return _as_float16(value)

    def of(self, dtype: str) -> float | None:
        """The peak for operands of a trace's ``dtype``; None if the GPU cannot compute them."""
        if dtype in ("float8", "int8", "uint8"):
            return (self.float8 if dtype == "float8" else None) or self.int8
        peaks = {"float16": self.float16, "bfloat16": self.float16, "float32": self.float32}
        return peaks.get(dtype)


class GpuConfig(Section):
    """A GPU as a roofline (Williams et al., CACM 2009): a kernel takes as long as the slower of arithmetic and memory.

    An efficiency is the part of the roof, arithmetic or memory, that kernels of its class reach.
    """

    name: Name
    peak_flops: GpuPeakConfig
    bandwidth_gbps: Bandwidth
    """GB/s (10^9 bytes) of the device's memory."""
    capacity_bytes: Bytes
    kernel_launch_s: Annotated[float, Number(0, 1)]
    """Added to every kernel, s."""
    gemm_efficiency: Share = 1.0
    """Matrix products and convolutions. 1.0: the pure roofline (assumption)."""
    attention_efficiency: Share = 1.0
    """Attention of all requests, one kernel. 1.0: the pure roofline (assumption)."""
    elementwise_efficiency: Share = 1.0
    """Everything else, which is bound by memory. 1.0: the pure roofline (assumption)."""


class MappingConfig(Section):
    """Modelling assumptions of how operators become work (see ``docs/architecture.md``)."""

    npu_attention: Literal["split", "pipelined", "serial"] = "split"
    """Attention of the decode phase on the NPU. split: blocks of tokens of any head and request on any array, in steps of at
    most a quarter of the scratchpad; pipelined: the K, then the V of a request is one step, and an array has a whole head; serial:
    request by request and head by head, each GEMV drained (assumption of the published artifact)."""
    gemm_loops: Literal["fastest", "least_traffic", "token_blocks"] = "fastest"
    """How a GEMM is cut into tiles. fastest: whatever takes the least time, then the least DRAM traffic; least_traffic: the other way
    round; token_blocks: blocks of tokens outermost and all weights loaded during the first (assumption of the published artifact:
    the other blocks compute while memory idles)."""
    keep_activations_on_chip: bool = True
    """Whether an operator may take its input from the scratchpad when the producer left it there and it fits."""
    fuse: bool = True
    """Whether operators of the vector units (activations, residual additions, norms by their statistics) take the tiles of a matrix
    product as they are made, without a way through DRAM or room for all of it."""
    hold_residents: bool = True
    """Whether activations that stay in the scratchpad take room from what is loaded ahead, and two interleaved sub-batches have
    half of it each."""
    operator_drain: bool = False
    """Whether an operator starts only after the previous one of the same sub-batch has stored everything to DRAM."""
    write_kv: bool = True
    """Whether the new token's K and V are written to DRAM."""
    gemm_output_padding: bool = False
    """Assumption of the published artifact: a GEMM of M tokens and N outputs stores M x 128 ceil(M/128) elements instead of M x N."""
    search_program_tiles: Annotated[int, Whole(1, 2**20)] = 32
    """PIM tiles of a search that a channel runs without letting other PIM work in between."""
    kv_capacity: Literal["all_layers", "simulated_layers"] = "all_layers"
    """Whose K and V must fit in memory: those of all layers of the device, or (as in the published artifact, which
    simulates one block) only of the simulated ones."""


class SimulationConfig(Section):
    """How a run is carried out."""

    layers: Annotated[int, Whole(1, 1_000)] = 2
    """Of identical layers, how many are simulated in full; the mean of these but the first stands for those that are not. In
    retrieval: of identical steps (batches of queries)."""
    queries: Annotated[int, Whole(1, 1_000)] = 4
    """Of the queries that PIM searches one after the other, how many are simulated in full."""
    snapshots: Annotated[int, Whole(1, 1_000)] = 1
    """Batches that are drawn and simulated, each from random streams of its own; metrics are means over them."""
    watchdog_cycles: Annotated[int, Whole(1, MOST_EXACT)] = 100_000_000
    """A run in which nothing completes for this long is stopped and the blocked component named."""


class Config(Section):
    """The whole configuration of one run."""

    system: Name
    """Stem of the file in ``configs/systems`` that this configuration started from."""
    preset: Name = "physical"
    seed: Seed = 0
    clock_ghz: Clock = 1.0
    """Device clock; all cycles above the memory are of this clock."""
    attention_on: Literal["pim", "npu"] = "pim"
    """Which unit runs the attention of the decode phase."""
    search_on: Literal["pim", "npu"] | None = None
    """Which unit compares queries with a database; that of attention unless given."""
    pooling_on: Literal["vector", "pim"] = "vector"
    """Which unit sums over tokens when a ViT pools them. Powers and roots are always taken on the vector units."""
    gpu: GpuConfig | None = None
    """Run on this GPU instead of NPU and PIM; then ``memory``, ``scheduling`` and ``mapping`` have no effect, and of ``npu`` only
    ``element_bytes`` has one."""
    npu: NpuConfig
    memory: MemoryConfig
    model: AnyModel
    workload: AnyWorkload
    parallel: ParallelConfig = ParallelConfig()
    scheduling: SchedulingConfig = SchedulingConfig()
    mapping: MappingConfig = MappingConfig()
    simulation: SimulationConfig = SimulationConfig()
    serving: ServingConfig = ServingConfig()
    """Requests over time, for ``neupims-sim serve``; a single iteration does not read it."""
