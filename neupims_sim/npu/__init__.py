"""NPU hardware models: systolic arrays, how they share a GEMM, vector units. They know cycles, not neural networks."""

from neupims_sim.npu.sharing import Part, SharedGemm, share_gemm, sharing_policies
from neupims_sim.npu.systolic import Gemm, Occupancy, array_occupancy, utilization
from neupims_sim.npu.vector import Recipe, operation_cycles, row_recipes, rows_cycles, softmax_occupancy, vector_cycles

__all__ = [
    "Gemm",
    "Occupancy",
    "Part",
    "Recipe",
    "SharedGemm",
    "array_occupancy",
    "operation_cycles",
    "row_recipes",
    "rows_cycles",
    "share_gemm",
    "sharing_policies",
    "softmax_occupancy",
    "utilization",
    "vector_cycles",
]
