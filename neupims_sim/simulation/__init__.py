"""One run: from a configuration to a Result."""

from neupims_sim.memory.models import SimulationStalled
from neupims_sim.simulation.directory import Origin, check_run_directory, run_directory
from neupims_sim.simulation.environment import environment
from neupims_sim.simulation.policies import POLICIES, check_config_names
from neupims_sim.simulation.result import Result, write_run
from neupims_sim.simulation.run import check_fits, simulate
from neupims_sim.simulation.timeline import Timeline

__all__ = [
    "POLICIES",
    "Origin",
    "Result",
    "SimulationStalled",
    "Timeline",
    "check_config_names",
    "check_fits",
    "check_run_directory",
    "environment",
    "run_directory",
    "simulate",
    "write_run",
]
