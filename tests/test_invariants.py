"""The invariants of docs/architecture.md at the level of whole runs; those of memory alone are in test_memory_legality."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation_cases import CASES, SYSTEMS, layer_trace, small

from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.memory.legality import check_commands, check_refresh
from neupims_sim.memory.models import MemoryModel, SimulationStalled
from neupims_sim.memory.spec import COMMANDS
from neupims_sim.simulation import Timeline, simulate
from neupims_sim.simulation.observations import Observations
from neupims_sim.trace import macs
from neupims_sim.workloads import request_batch

Settings = dict[str, Any]


class CommandLog(Timeline):
    """Keeps every command of a run."""

    def watch(self, config: Config, memory: MemoryModel, seen: Observations) -> None:
        self.memory = memory

    def busy(self, lane: str, name: str, start: int, end: int) -> None:
        """Only the memory is of interest."""

    def under_way(self, what: str, until: simpy.Event, bursts: int = 0) -> None:
        """Only the memory is of interest."""


@pytest.mark.parametrize(
    ("system", "options"),
    [
        *CASES,
        pytest.param("neupims", {"preset": "physical", "clock_ghz": 0.7}, id="slow-device"),
        pytest.param("neupims", {"preset": "physical", "scheduling.interleaving": "dataflow"}, id="dataflow"),
    ],
)
def test_inv_1_and_4_whole_runs_issue_legal_commands_only(system: str, options: Settings) -> None:
    """INV-1 legality and INV-4 refresh, when transfers and PIM programs of a simulation meet in the channels."""
    tiny = {
        "model.d_model": 128,
        "model.heads": 1,
        "model.d_ff": 512,
        "model.layers": 2,
        "memory.organization.channels": 2,
    }
    config = small(system, tiny | {"workload.batch_size": 6} | options)
    watcher = CommandLog()
    simulate(config, watcher)
    log = watcher.memory.take_log()
    assert check_commands(config.memory, log, preset=config.preset) == []
    assert check_refresh(config.memory, log, int(log[:, 0].max())).violations == []
    kinds = {COMMANDS[command] for command in np.unique(log[:, 2])}
    assert {"RD", "WR", "ACT", "REF"} <= kinds
    assert ("GEMV" in kinds) == (system != "npu_only")


@pytest.mark.parametrize(("system", "options"), CASES)
def test_inv_2_bytes_are_whole_bursts_and_cover_the_weights(system: str, options: Settings) -> None:
    """INV-2 conservation: bytes moved = bursts x burst size; every sub-batch reads every weight."""
    config = small(system, options)
    result = simulate(config)
    burst = config.memory.organization.burst_bytes
    assert result.traffic_bytes["read"] == pytest.approx(result.commands["RD"] * burst, abs=burst)
    assert result.traffic_bytes["write"] == pytest.approx(result.commands["WR"] * burst, abs=burst)
    operators = layer_trace(config).operators
    matrices = sum(t.bytes for op in operators if op.op == "gemm" for t in op.inputs[1:2])
    sub_batches = 1 if result.interleaving == "off" else 2
    cache = sum(op.inputs[1].bytes for op in operators if op.op in ("attention_logits", "attention_attend"))
    needed = sub_batches * matrices + (cache if system == "npu_only" else 0)
    assert needed <= result.traffic_bytes["read"]
    if options["preset"] == "physical":
        assert result.traffic_bytes["read"] < 1.25 * needed
        new_tokens = sum(op.outputs[0].bytes for op in operators if op.op == "kv_append")
        assert result.traffic_bytes["write"] >= new_tokens


@pytest.mark.parametrize(("system", "options"), CASES)
def test_inv_3_every_mac_of_the_trace_is_executed_once_on_one_unit(system: str, options: Settings) -> None:
    """INV-3 work."""
    config = small(system, options)
    result = simulate(config)
    executed: Counter[str] = Counter()
    times: Counter[tuple[int, str]] = Counter()
    units: dict[str, set[str]] = {}
    for record in result.observations.operators:
        executed[record.operator] += record.macs
        times[record.layer, record.operator] += 1
        units.setdefault(record.operator, set()).add(record.unit)
    wanted: Counter[str] = Counter()
    for operator in layer_trace(config).operators:
        wanted[operator.name] += macs(operator)

    layers, batch = result.simulated_layers, config.workload.batch_size
    sub_batches = 1 if result.interleaving == "off" else 2
    assert all(len(used) == 1 for name, used in units.items() if wanted[name])
    for name in ("qkv", "projection", "ffn1", "ffn2"):
        assert executed[name] == layers * wanted[name]
        assert all(times[layer, name] == sub_batches for layer in range(layers))
    attention = wanted["logits"] + wanted["attend"]
    if system == "npu_only":
        assert executed["attention"] == layers * attention
        assert result.observations.pim_macs == 0
        return
    for name in ("logits", "attend"):
        assert all(times[layer, name] == batch for layer in range(layers))
        # A dot-product takes whole rows of all banks: short contexts leave multipliers idle, which count as executed.
        assert layers * wanted[name] <= executed[name] < 2.5 * layers * wanted[name]
    assert result.observations.pim_macs == executed["logits"] + executed["attend"]


@pytest.mark.parametrize(("system", "options"), CASES)
def test_inv_5_no_run_beats_the_peaks(system: str, options: Settings) -> None:
    """INV-5 bounds: cycles >= max(compute / peak, bytes / peak bandwidth); utilizations in [0, 1]."""
    config = small(system, options)
    result = simulate(config)
    organization, systolic = config.memory.organization, config.npu.systolic
    peak_macs = systolic.arrays * systolic.rows * systolic.columns
    peak_bytes = organization.channels * organization.burst_bytes / organization.burst_cycles
    moved = result.traffic_bytes["read"] + result.traffic_bytes["write"]
    assert result.block_cycles >= moved / peak_bytes - 1
    assert result.simulated_cycles >= result.observations.npu_macs / peak_macs
    for name, share in result.utilization.items():
        assert 0 <= share <= 1, name
    assert result.utilization["npu"] <= result.utilization["npu_busy"]  # arrays multiply only while they are busy


@settings(max_examples=12)
@given(
    system=st.sampled_from(SYSTEMS),
    preset=st.sampled_from(["physical", "asplos24"]),
    batch=st.sampled_from([8, 24, 64]),
    resource=st.sampled_from(
        [
            ("memory.organization.channels", 4, 8),
            ("memory.organization.channels", 8, 16),
            ("npu.systolic.arrays", 2, 4),
            ("npu.systolic.arrays", 4, 8),
            ("npu.vector.units", 2, 8),
            ("memory.organization.clock_ghz", 1.0, 1.25),
        ]
    ),
)
def test_inv_6_more_of_a_resource_is_never_slower(
    system: str, preset: str, batch: int, resource: tuple[str, float, float]
) -> None:
    """INV-6 monotone: more channels, arrays or bandwidth never lowers throughput by more than 2 %."""
    key, few, many = resource
    less, more = (
        simulate(small(system, {"preset": preset, "workload.batch_size": batch, key: count})) for count in (few, many)
    )
    assert more.throughput_tokens_per_s >= 0.98 * less.throughput_tokens_per_s


@settings(max_examples=12, deadline=None)
@given(
    layers=st.sampled_from([4, 6, 8]),
    batch=st.integers(2, 40),
    width=st.sampled_from([512, 1024]),
    context=st.integers(1, 900),
    preset=st.sampled_from(["physical", "asplos24"]),
)
def test_every_interleaving_does_the_same_work_in_a_layer(
    layers: int, batch: int, width: int, context: int, preset: str
) -> None:
    """A block has the operators of a layer, each once, wherever the marks of a policy fall."""
    shape = {"model.layers": layers, "model.d_model": width, "model.d_ff": 4 * width, "preset": preset}
    shape |= {"workload.batch_size": batch, "workload.context_tokens": context}
    off, lockstep, dataflow = (
        simulate(small(settings=shape | {"scheduling.interleaving": name})) for name in ("off", "lockstep", "dataflow")
    )
    assert dataflow.operator_flops == lockstep.operator_flops == off.operator_flops
    for name in ("logits", "attend"):
        assert dataflow.operator_bytes[name] == lockstep.operator_bytes[name] == off.operator_bytes[name]


@pytest.mark.parametrize("interleaving", ["off", "lockstep", "dataflow"])
def test_inv_7_a_timeline_does_not_change_the_result(interleaving: str) -> None:
    """INV-7 determinism: the same bytes again, and with or without a timeline."""
    config = small(settings={"scheduling.interleaving": interleaving, "workload.batch_size": 64})
    texts = {json.dumps(simulate(config, timeline).to_json()) for timeline in (None, None, Timeline())}
    assert len(texts) == 1


def test_inv_7_processes_agree_to_the_byte(tmp_path: Path) -> None:
    """INV-7 determinism: whatever the process and its hash seed."""
    program = (
        "import sys; from simulation_cases import small; from neupims_sim.simulation import *; from pathlib import *\n"
        "config = small(settings={'scheduling.interleaving': 'dataflow'}); result = simulate(config)\n"
        "write_run(result, config, Path(sys.argv[1]), 0.0)\n"
    )
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / seed)], check=True, env=environment)
    for name in ("result.json", "operators.csv", "config.yaml"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize("model", ["silent", "ticking"])
@pytest.mark.parametrize("system", ["neupims", "npu_only"])
def test_inv_8_a_memory_that_never_answers_is_named(system: str, model: str) -> None:
    """INV-8 no hang: the watchdog names who waits for what."""
    config = small(system, {"memory.model": model, "simulation.watchdog_cycles": 1_000_000})
    with pytest.raises(SimulationStalled) as stalled:
        simulate(config)
    message = str(stalled.value)
    assert f"model {model!r}" in message
    assert "sub-batch 0 is in QKV of layer 0" in message
    assert "a read of" in message


def test_inv_8_work_that_takes_long_is_not_a_stall() -> None:
    """INV-8: the watchdog counts from the last completion, not from the start."""
    config = small(settings={"simulation.watchdog_cycles": 50_000})
    assert simulate(config).simulated_cycles > 100_000
    assert simulate(config).to_json() | {"config_hash": ""} == simulate(small()).to_json() | {"config_hash": ""}


@pytest.mark.parametrize("system", SYSTEMS)
def test_inv_9_a_batch_beyond_the_capacity_is_refused_with_the_numbers(system: str) -> None:
    """INV-9 capacity."""
    config = small(system, {"workload.batch_size": 512, "memory.organization.rows": 512})
    with pytest.raises(InputError, match=r"the batch does not fit: .*[0-9]+ B of .*what helps: "):
        simulate(config)


def test_inv_9_the_channels_of_a_request_file_count_too(tmp_path: Path) -> None:
    """INV-9 capacity: all requests on one channel need more room than the same requests on eight."""
    lengths = request_batch(small().workload, 0).context_tokens.tolist() * 3
    rows: Settings = {"memory.organization.rows": 4096}
    for name, channels in (("spread", np.arange(48) % 8), ("crowded", np.zeros(48, int))):
        lines = [f"{length},{channel}" for length, channel in zip(lengths, channels, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["seq_len,ch_idx", *lines]) + "\n")
    assert simulate(small(settings=rows | {"workload.requests": str(tmp_path / "spread.csv")})).batch_size == 48
    with pytest.raises(InputError, match=r"channel 0 needs .* K and V of 48 requests"):
        simulate(small(settings=rows | {"workload.requests": str(tmp_path / "crowded.csv")}))
