"""What is served: model descriptions and requests, turned into operator traces."""

from neupims_sim.workloads.llm import block_parameters, generate_llm, parameters
from neupims_sim.workloads.random import stream
from neupims_sim.workloads.requests import (
    LengthTable,
    RequestBatch,
    RequestStream,
    arrival_order,
    load_lengths,
    prompt_batch,
    read_lengths,
    read_request_batch,
    read_request_stream,
    request_batch,
    warmed_up_batch,
    warmed_up_contexts,
)
from neupims_sim.workloads.resnet import generate_resnet
from neupims_sim.workloads.retrieval import generate_retrieval
from neupims_sim.workloads.vit import generate_vit

__all__ = [
    "LengthTable",
    "RequestBatch",
    "RequestStream",
    "arrival_order",
    "block_parameters",
    "generate_llm",
    "generate_resnet",
    "generate_retrieval",
    "generate_vit",
    "load_lengths",
    "parameters",
    "prompt_batch",
    "read_lengths",
    "read_request_batch",
    "read_request_stream",
    "request_batch",
    "stream",
    "warmed_up_batch",
    "warmed_up_contexts",
]
