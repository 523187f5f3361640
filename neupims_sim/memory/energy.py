"""Energy of a memory: currents and supply voltage of a data sheet, times what was done.

The method is Micron's (technical note TN-40-07, "Calculating Memory Power for DDR4 SDRAM", as DRAMsim3 uses it): standby by
the time with and without an open row, and each command for what it draws above standby. With mA, V and ns the unit is pJ.
"""

from __future__ import annotations

from neupims_sim.config.memory import MemoryConfig, PowerConfig
from neupims_sim.errors import InputError
from neupims_sim.memory.device import Counters
from neupims_sim.memory.program import FP16_BYTES


def command_energy_pj(memory: MemoryConfig, element_bytes: int = FP16_BYTES) -> dict[str, float]:
    """Energy of one command above standby, pJ (GEMV: its results; ``dot_product``: one slot of it), in all of its banks.

    ``element_bytes``: of what PIM multiplies.

    Raises InputError if the table has no ``power``, or lacks a timing that a current holds for.
    """
    power = _power(memory)
    organization, timing, pim = memory.organization, memory.timing, memory.pim
    per_rank = power.vdd_v * power.devices_per_rank / organization.clock_ghz
    tras, trp = _cycles(memory, "tRAS"), _cycles(memory, "tRP")
    burst = organization.burst_cycles
    refresh = per_rank * (power.idd5ab_ma - power.idd3n_ma) * timing.get("tRFC", 0)
    per_bank = refresh * organization.banks_per_refpb / organization.banks_per_rank
    if power.idd5pb_ma:
        per_bank = per_rank * (power.idd5pb_ma - power.idd3n_ma) * timing.get("tRFCpb", 0)
    opened = {"bank_group": organization.banks_per_group, "rank": organization.banks_per_rank}[pim.activates]
    return {
        "ACT": per_rank * (power.idd0_ma * (tras + trp) - power.idd3n_ma * tras - power.idd2n_ma * trp),
        "RD": per_rank * (power.idd4r_ma - power.idd3n_ma) * burst,
        "WR": per_rank * (power.idd4w_ma - power.idd3n_ma) * burst,
        "REF": refresh,
        "REFPB": per_bank,
        "PIM_ACT": power.pim_activate_pj_per_row * opened,
        "GWRITE": power.gwrite_pj_per_byte * organization.row_bytes,
        "GEMV": power.result_read_pj_per_bank * organization.banks,
        "dot_product": power.dot_product_pj_per_byte * organization.banks * pim.multipliers_per_bank * element_bytes,
    }


def standby_energy_pj(memory: MemoryConfig, memory_cycles: float, open_cycles: dict[str, int] | None = None) -> float:
    """Energy of all ranks of the device standing by, pJ.

    ``open_cycles``: cycles with a row open, summed over ranks, per kind of row buffer (:attr:`Counters.open_cycles`).
    """
    power, organization = _power(memory), memory.organization
    ranks = organization.channels * organization.pseudo_channels * organization.ranks
    rank_cycles = ranks * memory_cycles
    opened = open_cycles or {}
    current = power.idd2n_ma * rank_cycles + (power.idd3n_ma - power.idd2n_ma) * opened.get("memory", 0)
    if memory.row_buffers == "dual":
        current += power.pim_idd2n_ma * rank_cycles
        current += (power.pim_idd3n_ma - power.pim_idd2n_ma) * opened.get("pim", 0)
    return power.vdd_v * power.devices_per_rank / organization.clock_ghz * current


def memory_energy_joules(
    memory: MemoryConfig, counters: Counters, memory_cycles: float, element_bytes: int = FP16_BYTES
) -> dict[str, float]:
    """Energy of the whole device by cause, J, after ``memory_cycles`` cycles in which it did what ``counters`` say.

    ``element_bytes``: of what PIM multiplies.

    Raises InputError if the table has no ``power``.
    """
    each = command_energy_pj(memory, element_bytes)
    done = counters.commands
    picojoules = {
        "memory_background": standby_energy_pj(memory, memory_cycles, counters.open_cycles),
        "memory_activate": each["ACT"] * done.get("ACT", 0),
        "memory_read": each["RD"] * done.get("RD", 0),
        "memory_write": each["WR"] * done.get("WR", 0),
        "memory_refresh": each["REF"] * done.get("REF", 0) + each["REFPB"] * done.get("REFPB", 0),
    }
    if memory.row_buffers != "none":
        picojoules |= {
            "pim_activate": each["PIM_ACT"] * done.get("PIM_ACT", 0),
            "pim_vector_write": each["GWRITE"] * done.get("GWRITE", 0),
            "pim_dot_product": each["dot_product"] * counters.dot_products,
            "pim_result_read": each["GEMV"] * counters.result_reads,
        }
    return {cause: energy * 1e-12 for cause, energy in picojoules.items()}


def _power(memory: MemoryConfig) -> PowerConfig:
    if memory.power is None:
        raise InputError(
            f"memory {memory.name!r}: power is missing; it states currents and voltage, without which there is no energy"
        )
    return memory.power


def _cycles(memory: MemoryConfig, name: str) -> int:
    if name not in memory.timing:
        raise InputError(f"memory {memory.name!r}: timing.{name} is missing; the energy of an activation needs it")
    return memory.timing[name]
