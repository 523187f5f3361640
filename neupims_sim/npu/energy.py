"""Energy of the NPU: what its units did, times the energy of one access or operation (``npu.energy``)."""

from __future__ import annotations

from neupims_sim.config.schema import NpuConfig


def npu_energy_joules(config: NpuConfig, *, macs: float, vector_cycles: float, dma_bytes: float) -> dict[str, float]:
    """Energy by cause, J.

    Parameters
    ----------
    macs: multiply-accumulates of the systolic arrays.
    vector_cycles: cycles in which the vector units worked; all lanes of all units count.
    dma_bytes: bytes between memory and scratchpad, both directions.

    A streamed operand is read from the scratchpad once per column of the array, a partial sum read and written in the accumulator
    once per row. In a cell the streamed operand and the partial sum pass through a register each (read and written), the
    stationary operand is read.
    """
    energy, systolic, vector = config.energy, config.systolic, config.vector
    operand, partial_sum = config.element_bytes, config.accumulator_element_bytes
    picojoules = {
        "npu_mac": macs * getattr(energy.mac_pj, config.dtype),
        "npu_registers": macs * (3 * operand + 2 * partial_sum) * energy.register_pj_per_byte,
        "npu_accumulator": macs * 2 * partial_sum / systolic.rows * energy.sram_pj_per_byte,
        "npu_scratchpad": (dma_bytes + macs * operand / systolic.columns) * energy.sram_pj_per_byte,
        "npu_vector": vector_cycles * vector.units * vector.lanes * getattr(energy.vector_operation_pj, config.dtype),
    }
    return {cause: value * 1e-12 for cause, value in picojoules.items()}
