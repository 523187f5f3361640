"""What a simulation would take, estimated before it starts, so that one that nobody waits for is refused at once."""

from __future__ import annotations

from collections.abc import Iterable

from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.trace import Operator, read_bytes, write_bytes

MOST_BURSTS = 10**10
"""Of DRAM: about an hour of the compiled engine, which does 3 to 16 million a second."""
MOST_EXECUTIONS = 4 * 10**6
"""Of operators: about an hour, too, at a millisecond each."""


def check_effort(config: Config, operators: Iterable[Operator], layers: int, steps: int = 1) -> None:
    """Raise InputError if the operators of one device are too much to simulate.

    Parameters
    ----------
    layers: how many executions of a repeated operator are simulated at most.
    steps: how often all of them are.
    """
    executions = moved_bytes = 0
    for operator in operators:
        times = min(operator.repeat, layers)
        executions += times
        moved_bytes += times * (sum(read_bytes(operator).values()) + sum(write_bytes(operator).values()))
    times = steps * config.simulation.snapshots
    bursts = moved_bytes * times // config.memory.organization.burst_bytes
    for amount, most, what in (
        (bursts, MOST_BURSTS, "bursts of DRAM"),
        (executions * times, MOST_EXECUTIONS, "operators"),
    ):
        if amount > most:
            raise InputError(
                f"workload {config.workload.name!r} with model {config.model.name!r} would simulate {amount:.3g} {what}, which takes "
                f"hours; allowed: {most:.0e}. Smaller: workload.{_SIZES[config.workload.kind]}, "
                f"simulation.layers={config.simulation.layers}, simulation.snapshots={config.simulation.snapshots}, the model"
            )


_SIZES = {"llm": "batch_size", "images": "batch_size", "retrieval": "queries", "trace": "path"}
"""The key of each kind of workload that says how much there is to do."""
