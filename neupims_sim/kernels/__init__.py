"""What operators compute: plain NumPy functions without any notion of hardware or time.

Arrays are float32 or float64, batch first, and results have the type of the inputs. :mod:`~neupims_sim.kernels.costs`
has the work of each kernel under the kernel's name.
"""

from neupims_sim.kernels.attention import (
    attention_output,
    attention_probabilities,
    decode_attention,
    multi_head_attention,
    softmax,
)
from neupims_sim.kernels.pooling import average_pool, class_token, gem, gem_grad, ggem, ggem_grad, max_pool
from neupims_sim.kernels.retrieval import rerank, rerank_order, search
from neupims_sim.kernels.superglobal import gem_plus, l2_normalize, regional_gem, relup, scale_gem
from neupims_sim.kernels.transformer import BlockWeights, Linear, Norm, gelu, layer_norm, linear, vit_block

__all__ = [
    "BlockWeights",
    "Linear",
    "Norm",
    "attention_output",
    "attention_probabilities",
    "average_pool",
    "class_token",
    "decode_attention",
    "gelu",
    "gem",
    "gem_grad",
    "gem_plus",
    "ggem",
    "ggem_grad",
    "l2_normalize",
    "layer_norm",
    "linear",
    "max_pool",
    "multi_head_attention",
    "regional_gem",
    "relup",
    "rerank",
    "rerank_order",
    "scale_gem",
    "search",
    "softmax",
    "vit_block",
]
