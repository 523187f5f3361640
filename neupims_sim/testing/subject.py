"""A memory to be checked, and the trials that several checks look at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import simpy

from neupims_sim.config import MemoryConfig
from neupims_sim.errors import InputError
from neupims_sim.memory.engine import READ
from neupims_sim.memory.models import Capabilities, CommandMemory, MemoryModel
from neupims_sim.memory.program import row_dots
from neupims_sim.testing.trial import Trial
from neupims_sim.testing.work import Space, Work


class SkipError(Exception):
    """Why a check has nothing to look at."""


class Subject:
    """A table and the model class that is to work with it."""

    def __init__(
        self, config: MemoryConfig, model: type[MemoryModel], preset: str, seed: int, patience_cycles: int
    ) -> None:
        self.config = config
        self.preset = preset
        self._model = model
        self._seed = seed
        self._patience_cycles = patience_cycles
        self.capabilities: Capabilities = self.idle().capabilities
        organization = config.organization
        self.space = Space(
            capacity_bytes=self.capabilities.capacity_bytes,
            channels=self.capabilities.channels,
            rows=organization.rows,
            burst_bytes=organization.burst_bytes,
            peak_bytes_per_cycle=self.capabilities.peak_bytes_per_cycle,
            row_dots=row_dots(config),
        )

    def of(self, table: MemoryConfig) -> Subject:
        """The same model with another table."""
        return Subject(table, self._model, self.preset, self._seed, self._patience_cycles)

    @property
    def has_commands(self) -> bool:
        """Whether the model issues commands by the policies of the table."""
        return issubclass(self._model, CommandMemory)

    @property
    def clock_ghz(self) -> float:
        """The memory's clock, which the device has, too, unless something else is said: both count the same cycles."""
        return self.config.organization.clock_ghz

    def idle(self, clock_ghz: float | None = None) -> MemoryModel:
        """A new model that nothing is asked of yet."""
        return self._build(clock_ghz or self.clock_ghz, simpy.Environment())

    def trial(self, works: Sequence[Work], clock_ghz: float | None = None) -> Trial:
        """Work on a new model."""
        return Trial(partial(self._build, clock_ghz or self.clock_ghz), works, self._patience_cycles)

    def _build(self, clock_ghz: float, env: simpy.Environment) -> MemoryModel:
        return self._model(env, self.config, preset=self.preset, clock_ghz=clock_ghz, log=True)

    @cached_property
    def has_channels(self) -> bool:
        """Whether the model takes transfers to single channels, or must because it has PIM."""
        try:
            self.idle().transfer_in_channel(READ, 0, 0, 1)
        except InputError:
            return self.capabilities.pim
        return True

    @cached_property
    def transfers(self) -> Trial:
        """Transfers of all kinds."""
        return self.trial(self.space.mixed_transfers(self._seed, self.has_channels))

    @cached_property
    def flood(self) -> Trial:
        """Much at once."""
        return self.trial(self.space.much_at_once())

    @cached_property
    def pim(self) -> Trial:
        """PIM programs on their own."""
        return self.trial(self.space.mixed_programs(self._seed))

    @cached_property
    def together(self) -> Trial:
        """PIM programs and transfers."""
        works: list[Work] = [*self.pim.works, *self.transfers.works]
        return self.trial(sorted(works, key=lambda work: work.cycle))

    def finished(self) -> list[Trial]:
        """The trials that came to their end; SkipError if one with transfers only did not, for which a check stands already."""
        for trial in (self.transfers, self.flood):
            if trial.trouble is not None:
                raise SkipError(f"see {trial.trouble.check}")
        with_pim = [self.pim, self.together] if self.capabilities.pim else []
        return [trial for trial in (self.transfers, self.flood, *with_pim) if trial.trouble is None]
