"""What every unit of the device did and when, as trace events that https://ui.perfetto.dev shows (docs/timeline.md)."""

from neupims_sim.simulation.timeline.recorder import Timeline

__all__ = ["Timeline"]
