"""How many blocks of K and V the device's memory holds beside weights and activations."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from neupims_sim.config import Config
from neupims_sim.errors import InputError


@dataclass(frozen=True)
class BlockCapacity:
    """Blocks of one instance. blocks: usable ones."""

    blocks: int
    block_tokens: int

    def to_json(self) -> dict[str, int]:
        """``kv_blocks`` of ``result.json``."""
        return asdict(self)


def block_capacity(config: Config) -> BlockCapacity:
    """``serving.scheduler.num_gpu_blocks``, of which one holds nothing (vLLM's null block)."""
    options = config.serving.scheduler
    if options.num_gpu_blocks is None:
        raise InputError("serving.scheduler.num_gpu_blocks is missing")
    return BlockCapacity(options.num_gpu_blocks - 1, options.block_size)
