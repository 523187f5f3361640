"""Which keys that somebody sets change nothing, and why: nothing is silently ignored.

Looked at are overrides (``--set``, the mapping in Python), and the user's file that is loaded, where it builds on others: what it
includes may have other uses, and a complete configuration has every key. An override that
contradicts another statement of the user is an error; what the chosen system has no use for is a warning, so that one script can
set the same keys for different systems. The points of a sweep cross systems on purpose; a key is told that changes
nothing at any of them. Bounds (capacities, longest contexts) change nothing until something meets them, and are not told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from neupims_sim.config.memory import PowerConfig
from neupims_sim.config.overrides import Override
from neupims_sim.config.schema import (
    NPU_FORMATS,
    Config,
    GpuPeakConfig,
    ImagesConfig,
    RetrievalConfig,
    WorkloadConfig,
)


class Ineffective(NamedTuple):
    """A key without effect. ``contradicts``: another statement has taken its place."""

    key: str
    reason: str
    contradicts: bool
    what: str = "nothing"
    """What it does not change."""
    source: str = "--set"
    """Who states it."""

    @property
    def text(self) -> str:
        """The line that tells."""
        return f"{self.key} changes {self.what}: {self.reason}"


class _Rule(NamedTuple):
    """Keys, or beginnings of keys that end in a dot, that change nothing where ``reason`` gives one."""

    keys: tuple[str, ...]
    reason: Callable[[Config], str | None]
    but: tuple[str, ...] = ()
    contradicts: bool = False
    what: str = "nothing"
    unless: tuple[str, ...] = ()
    """Other keys beside which nobody needs to be told."""


def ineffective(config: Config, overrides: list[Override]) -> list[Ineffective]:
    """Those of the overrides that change nothing."""
    found = []
    stated = [key for override in overrides for key in _leaves(".".join(override.keys), override.value)]
    for key in stated:
        for rule in _RULES:
            if not _matches(key, rule.keys) or _matches(key, rule.but) or any(_matches(k, rule.unless) for k in stated):
                continue
            reason = rule.reason(config)
            if reason is not None:
                found.append(Ineffective(key, reason, rule.contradicts, rule.what))
                break
    return found


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The keys that a value states: those of a mapping, else its own; a whole table with a name is one thing."""
    if isinstance(value, Mapping) and value and not ("name" in value and len(value) > 1):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    elif value is not None:
        yield key


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(key.startswith(pattern) if pattern.endswith(".") else key == pattern for pattern in patterns)


def _gpu(config: Config) -> str | None:
    return None if config.gpu is None else f"gpu={config.gpu.name} runs instead of NPU and PIM"


def _requests(config: Config) -> str | None:
    workload = config.workload
    if isinstance(workload, WorkloadConfig) and workload.requests is not None:
        return f"workload.requests={workload.requests!r} states the requests; workload.requests=null has them drawn"
    return None


def _contexts(config: Config) -> str | None:
    workload = config.workload
    if isinstance(workload, WorkloadConfig) and workload.context_tokens is not None:
        return f"workload.context_tokens={workload.context_tokens} is the length of every request"
    return None


def _uses_pim(config: Config) -> bool:
    """Whether anything runs in PIM."""
    workload, on = config.workload, config.search_on or config.attention_on
    searches = isinstance(workload, RetrievalConfig) or getattr(workload, "background", None) is not None
    decodes = isinstance(workload, WorkloadConfig)
    return (decodes and config.attention_on == "pim") or (searches and on == "pim") or config.pooling_on == "pim"


def _no_pim(config: Config) -> str | None:
    return None if config.gpu is not None or _uses_pim(config) else "nothing runs in PIM"


def _no_attention_in_pim(config: Config) -> str | None:
    decodes = isinstance(config.workload, WorkloadConfig)
    return None if decodes and config.attention_on == "pim" else "no attention of requests runs in PIM"


def _one_stage(config: Config) -> str | None:
    parallel = config.parallel
    count = parallel.micro_batches or parallel.pipeline
    return "there is one micro-batch" if count == 1 else None


def _no_link(config: Config) -> str | None:
    if config.parallel.link.topology == "none":
        return "parallel.link.topology=none: links are free"
    return None


def _one_device(config: Config) -> str | None:
    alone = config.parallel.tensor == config.parallel.pipeline == 1
    return "there is one device (parallel.tensor=1, parallel.pipeline=1)" if alone else None


def _no_interleaving_rule(config: Config) -> str | None:
    if not isinstance(config.workload, WorkloadConfig):
        return f"workload.kind={config.workload.kind} has no batch of requests"
    setting = config.scheduling.interleaving
    return None if setting == "auto" else f"scheduling.interleaving={setting}, not auto"


def _whole_batch(config: Config) -> str | None:
    return "scheduling.interleaving=off: the batch is not divided" if config.scheduling.interleaving == "off" else None


def _not_decoding(config: Config) -> str | None:
    kind = config.workload.kind
    return None if kind == "llm" else f"workload.kind={kind} decodes nothing"


def _no_request_file(config: Config) -> str | None:
    named = isinstance(config.workload, WorkloadConfig) and config.workload.requests is not None
    return None if named else "there is no file of requests (workload.requests)"


def _no_attention_on_npu(config: Config) -> str | None:
    decodes = isinstance(config.workload, WorkloadConfig)
    return None if decodes and config.attention_on == "npu" else "no attention of requests runs on the NPU"


def _channels_stated(config: Config) -> str | None:
    workload = config.workload
    if not isinstance(workload, WorkloadConfig) or workload.requests is None:
        return None
    return (
        f"workload.requests={workload.requests!r} states channels (ch_idx)"
        if _has_channels(workload.requests)
        else None
    )


_LONGEST_HEAD = 1000
"""Characters of a request file in which its columns are looked for."""


def _has_channels(path: str) -> bool:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return "ch_idx" in file.readline(_LONGEST_HEAD)
    except (OSError, UnicodeDecodeError):  # whoever reads it says so
        return False


def _no_loads(config: Config) -> str | None:
    """Of the shipped policies; own ones may use loads."""
    scheduling = config.scheduling
    assigned = _channels_stated(config) is not None or scheduling.channel_assignment == "round_robin"
    divided = scheduling.interleaving != "off" and scheduling.partition != "positional"
    unused = assigned and not divided
    return _no_attention_in_pim(config) or ("neither channel assignment nor partition goes by load" if unused else None)


def _nothing_drawn(config: Config) -> str | None:
    workload = config.workload
    if not isinstance(workload, WorkloadConfig):
        return f"workload.kind={workload.kind} draws nothing at random"
    if workload.requests is None and workload.context_tokens is not None:
        return "all requests are alike (workload.context_tokens)"
    if config.scheduling.request_order == "file" and _channels_stated(config):
        return "scheduling.request_order=file: the requests and their order are those of the file"
    return None


def _no_search(config: Config) -> str | None:
    searches = isinstance(config.workload, RetrievalConfig) or getattr(config.workload, "background", None) is not None
    return None if searches else "nothing is searched"


def _no_search_in_pim(config: Config) -> str | None:
    return _no_search(config) or (None if (config.search_on or config.attention_on) == "pim" else "no search in PIM")


def _no_queries(config: Config) -> str | None:
    return None if isinstance(config.workload, RetrievalConfig) else "no batch of queries is simulated"


def _no_model(config: Config) -> str | None:
    workload = config.workload
    if isinstance(workload, RetrievalConfig) and not workload.extract:
        return "workload.extract=false: no model runs"
    return f"workload.kind={workload.kind}: the trace says what runs" if workload.kind == "trace" else None


def _no_embedding(config: Config) -> str | None:
    lm_head = isinstance(config.workload, WorkloadConfig) and config.workload.lm_head
    return None if lm_head else "neither embedding nor LM head runs"


def _no_arrays(config: Config) -> str | None:
    workload = config.workload
    alone = isinstance(workload, RetrievalConfig) and not workload.extract and workload.rerank == "none"
    return "search in PIM alone leaves the arrays idle" if alone and _no_search_in_pim(config) is None else None


def _trace_formats(config: Config) -> str | None:
    traced = config.gpu is not None and config.workload.kind == "trace"
    return "the trace states its number formats" if traced else None


def _other_formats(dtype: str) -> Callable[[Config], str | None]:
    def reason(config: Config) -> str | None:
        return None if config.npu.dtype == dtype else f"the number format is {config.npu.dtype} (npu.element_bytes)"

    return reason


def _other_peaks(dtype: str) -> Callable[[Config], str | None]:
    """Traces of any format may come from a file."""

    def reason(config: Config) -> str | None:
        if config.workload.kind == "trace" or config.gpu is None:
            return None
        used = config.npu.dtype if getattr(config.gpu.peak_flops, config.npu.dtype) is not None else "int8"
        return None if used == dtype else f"the number format is {config.npu.dtype} (npu.element_bytes)"

    return reason


def _refresh_of_ranks(config: Config) -> str | None:
    refresh = config.memory.controller.refresh
    return None if refresh.startswith("per_bank") else f"memory.controller.refresh={refresh}"


def _no_timeout(config: Config) -> str | None:
    policy = config.memory.controller.page_policy
    return f"memory.controller.page_policy={policy}" if policy in ("open", "closed") else None


def _no_bounded_wait(config: Config) -> str | None:
    priority = config.memory.controller.pim_priority
    waits = priority not in ("pim_first", "ready_first", "memory_first")
    return _no_pim(config) or (None if waits else f"memory.controller.pim_priority={priority}")


def _stated_currents(config: Config) -> str | None:
    """Of PIM the energies are per row, byte and bank; currents are those of a device as it is."""
    return None if config.memory.power is None else "memory.power has those of the table's device"


def _one_row_buffer(config: Config) -> str | None:
    return None if config.memory.row_buffers == "dual" else f"memory.row_buffers={config.memory.row_buffers}, not dual"


def _command_memory(config: Config) -> str | None:
    return "memory.model=command" if config.memory.model == "command" else None


def _ideal_memory(config: Config) -> str | None:
    return "memory.model=ideal knows bandwidth and latency only" if config.memory.model == "ideal" else None


def _no_groups(config: Config) -> str | None:
    workload = config.workload
    pools = isinstance(workload, ImagesConfig) and workload.pooling == "ggem"
    return None if pools else "workload.pooling is not ggem"


def _no_extraction(config: Config) -> str | None:
    workload = config.workload
    no_images = isinstance(workload, RetrievalConfig) and not workload.extract
    return "workload.extract=false: queries are descriptors" if no_images else None


def _no_images(config: Config) -> str | None:
    """Of the rerankers only CVNet works on maps of the images."""
    return None if getattr(config.workload, "rerank", "") == "cvnet" else _no_extraction(config)


_RULES = (
    _Rule(
        ("workload.batch_size", "workload.dataset", "workload.warmup."),
        _requests,
        contradicts=True,
    ),
    _Rule(("workload.dataset", "workload.warmup."), _contexts, contradicts=True),
    _Rule(
        ("npu.", "memory.", "scheduling.", "mapping.", "attention_on", "search_on", "pooling_on", "memory", "npu"),
        _gpu,
        but=("npu.element_bytes",),
    ),
    _Rule(("simulation.layers", "simulation.queries", "simulation.watchdog_cycles"), _gpu),
    _Rule(("seed",), _nothing_drawn),
    _Rule(("model.",), _no_model),
    _Rule(("model.vocabulary",), _no_embedding),
    *(
        _Rule(tuple(f"npu.energy.{key}.{dtype}" for key in ("mac_pj", "vector_operation_pj")), _other_formats(dtype))
        for dtype in NPU_FORMATS.values()
    ),
    _Rule(("npu.energy.mac_pj", "npu.energy.vector_operation_pj"), _other_formats("float16")),  # one number
    *(_Rule((f"gpu.peak_flops.{dtype}",), _other_peaks(dtype)) for dtype in GpuPeakConfig.model_fields),
    _Rule(("gpu.peak_flops",), _other_peaks("float16")),
    _Rule(("npu.element_bytes",), _trace_formats),
    _Rule(
        (
            *("npu.systolic.", "npu.scratchpad_bytes", "npu.accumulator_bytes", "npu.accumulator_element_bytes"),
            *("npu.double_buffered", "npu.dma_transfer_latency_cycles", "npu.energy.mac_pj", "npu.energy.mac_pj."),
            *("npu.energy.register_pj_per_byte", "mapping.gemm_loops", "mapping.keep_activations_on_chip"),
            *("mapping.fuse", "mapping.hold_residents"),
            *("mapping.operator_drain", "mapping.gemm_output_padding", "simulation.layers"),
        ),
        _no_arrays,
    ),
    _Rule(("memory.pim.", *(f"memory.power.{key}" for key in PowerConfig.model_fields if "_pj_per_" in key)), _no_pim),
    _Rule(("memory.power.pim_idd2n_ma", "memory.power.pim_idd3n_ma"), _one_row_buffer),
    _Rule(
        tuple(
            f"memory.organization.{key}"
            for key in ("bank_groups", "banks_per_group", "row_bytes", "bus_bits", "pseudo_channels")
        ),
        _stated_currents,
        what="no currents",
        unless=("memory.power", "memory.power."),
    ),
    _Rule(("memory.organization.banks_per_refpb", "memory.power.idd5pb_ma"), _refresh_of_ranks),
    _Rule(("memory.controller.page_timeout_cycles",), _no_timeout),
    _Rule(("memory.controller.pim_max_wait_cycles",), _no_bounded_wait),
    _Rule(("memory.ideal_latency_cycles",), _command_memory),
    _Rule(("scheduling.channel_assignment", "scheduling.barrier"), _no_attention_in_pim),
    _Rule(("scheduling.channel_assignment",), _channels_stated),
    _Rule(("scheduling.load_gwrite_cycles", "scheduling.load_tile_cycles"), _no_loads),
    _Rule(("scheduling.request_order",), _no_request_file),
    _Rule(("mapping.npu_attention",), _no_attention_on_npu),
    _Rule(("mapping.write_kv", "mapping.kv_capacity"), _not_decoding),
    _Rule(("mapping.search_program_tiles",), _no_search_in_pim),
    _Rule(("search_on",), _no_search),
    _Rule(("simulation.queries",), _no_queries),
    _Rule(("scheduling.partition",), _whole_batch),
    _Rule(("scheduling.auto_min_batch",), _no_interleaving_rule),
    _Rule(("parallel.batch",), _one_stage),
    _Rule(("parallel.link.",), _one_device),
    _Rule(("parallel.link.bandwidth_gbps", "parallel.link.latency_ns"), _no_link),
    _Rule(("memory.controller.", "memory.pim.", "memory.timing."), _ideal_memory),
    _Rule(("workload.groups",), _no_groups),
    _Rule(("workload.pooling",), _no_extraction),
    _Rule(("workload.image_size",), _no_images),
)
