"""What operators compute: plain NumPy functions without any notion of hardware or time."""

from neupims_sim.kernels.attention import attention_output, attention_probabilities, decode_attention, softmax

__all__ = ["attention_output", "attention_probabilities", "decode_attention", "softmax"]
