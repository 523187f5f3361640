"""What an interactive session shows: public names, and objects in one short line."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass

import numpy as np
import pytest
from simulation_cases import layer_trace, small

import neupims_sim
from neupims_sim import load_config, simulate
from neupims_sim.config import available
from neupims_sim.memory import CommandDevice, resolve
from neupims_sim.showing import MOST, Shown
from neupims_sim.sweeps import expand, read_sweep
from neupims_sim.workloads import request_batch

PACKAGES = [
    "config",
    "kernels",
    "memory",
    "npu",
    "plots",
    "report",
    "serving",
    "simulation",
    "sweeps",
    "testing",
    "trace",
    "workloads",
]


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_dir_has_the_public_names(name: str) -> None:
    module = importlib.import_module(f"neupims_sim.{name}".rstrip("."))
    assert set(module.__all__) <= set(dir(module))
    assert all(hasattr(module, public) for public in module.__all__)


def test_dir_of_the_package_has_what_users_call_and_nothing_of_its_inside() -> None:
    assert [name for name in dir(neupims_sim) if not name.startswith("_")] == ["load_config", "simulate", "sweep"]


def objects() -> list[object]:
    config = load_config("neupims")
    result = simulate(small("gpu_a100"))
    sweep = read_sweep("quickstart")
    trace = layer_trace(small())
    spec = resolve(config.memory)
    parts = [getattr(config, name) for name in type(config).model_fields]
    return [
        *(load_config(system) for system in available("systems")),
        *(part for part in parts if isinstance(part, Shown)),
        *(result, result.observations, sweep, next(expand(sweep, "")), trace, trace.operators[0]),
        *(request_batch(config.workload, 0), spec, CommandDevice(spec)),
    ]


def test_configurations_results_and_what_else_a_session_shows_are_one_short_line() -> None:
    for shown in objects():
        for text in (repr(shown), str(shown)):
            assert len(text) <= MOST + 20
            assert "\n" not in text
            assert len(text) > 10


def test_a_configuration_and_a_result_show_what_they_are_about() -> None:
    config = load_config("neupims", {"workload.batch_size": 8})
    for word in ("Config(system='neupims'", "preset='physical'", "npu='neupims_npu'", "model='gpt3-7b'"):
        assert word in repr(config)
    assert repr(config.model).startswith("ModelConfig(name='gpt3-7b', family='decoder', layers=32")
    result = simulate(small("gpu_a100"))
    assert repr(result).startswith("Result(")
    assert f"cycles={result.cycles}, seconds={result.seconds:.6g}, " in repr(result)


@dataclass(frozen=True, repr=False)
class Thing(Shown):
    name: str
    count: object = None
    values: object = dataclasses.field(default_factory=list)


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (Thing("a"), "Thing(name='a', values=<0 items>)"),
        (Thing("a" * 100), f"Thing(name='{'a' * 56}..., values=<0 items>)"),
        (Thing("a", np.int64(3), np.zeros((2, 9))), "Thing(name='a', count=3, values=<2 items>)"),
        (Thing("a", 1 / 3, Thing("b")), "Thing(name='a', count=0.333333, values='b')"),
        (Thing("a", True, (1,)), "Thing(name='a', count=True, values=<1 item>)"),
        (Thing("a", 10**80, object()), f"Thing(name='a', count=1{'0' * 56}..., values=<object>)"),
    ],
)
def test_parts_are_shown_by_name_and_long_values_by_size(thing: Thing, text: str) -> None:
    assert repr(thing) == text
