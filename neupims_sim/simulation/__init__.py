"""One run: from a configuration to a Result."""

from neupims_sim.simulation.result import Result, write_run
from neupims_sim.simulation.run import simulate

__all__ = ["Result", "simulate", "write_run"]
