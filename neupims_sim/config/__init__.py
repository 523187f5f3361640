"""Typed, frozen configuration: YAML files in, one validated tree out."""

from __future__ import annotations

from neupims_sim.config.checks import check_config
from neupims_sim.config.files import available
from neupims_sim.config.identity import config_hash, dump_config
from neupims_sim.config.loader import check_file, load_config, load_memory, load_model, load_section
from neupims_sim.config.memory import MemoryConfig
from neupims_sim.config.schema import (
    AnyModel,
    BackgroundSearchConfig,
    Config,
    GpuConfig,
    ImagesConfig,
    IndexConfig,
    LinkConfig,
    MappingConfig,
    ModelConfig,
    NpuConfig,
    ParallelConfig,
    ResnetConfig,
    RetrievalConfig,
    SchedulingConfig,
    SystolicConfig,
    TraceFileConfig,
    VectorConfig,
    VitConfig,
    WorkloadConfig,
)
from neupims_sim.config.serving import (
    ArrivalsConfig,
    CostConfig,
    LimitsConfig,
    SchedulerConfig,
    ServedRequestsConfig,
    ServingConfig,
)

__all__ = [
    "AnyModel",
    "ArrivalsConfig",
    "BackgroundSearchConfig",
    "Config",
    "CostConfig",
    "GpuConfig",
    "ImagesConfig",
    "IndexConfig",
    "LimitsConfig",
    "LinkConfig",
    "MappingConfig",
    "MemoryConfig",
    "ModelConfig",
    "NpuConfig",
    "ParallelConfig",
    "ResnetConfig",
    "RetrievalConfig",
    "SchedulerConfig",
    "SchedulingConfig",
    "ServedRequestsConfig",
    "ServingConfig",
    "SystolicConfig",
    "TraceFileConfig",
    "VectorConfig",
    "VitConfig",
    "WorkloadConfig",
    "available",
    "check_config",
    "check_file",
    "config_hash",
    "dump_config",
    "load_config",
    "load_memory",
    "load_model",
    "load_section",
]
