"""Measure the GEMMs of GPT-3 blocks and their decoding attention on the GPU of this machine.

Needs PyTorch with CUDA, which the project itself does not: ``python measure.py -o measurements/NAME.csv``. Shapes are those of the
operator traces, so that ``compare.py`` finds each of them again.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neupims_sim.config import ModelConfig, load_model
from neupims_sim.workloads import generate_llm

MODELS = {"gpt3-7b": 4, "gpt3-13b": 4}
"""Tensor-parallel degree of each, as in the evaluation of NeuPIMs (ASPLOS 2024)."""
BATCHES = (64, 128, 256, 384, 512)
CONTEXTS = (64, 256, 1024)
FLUSH_BYTES = 256 * 2**20
"""More than any L2 cache: written before every repetition, so that operands come from the device's memory."""
COLUMNS = ("date", "device", "driver", "torch", "model", "tensor", "batch", "context", "kernel", "seconds")


def main() -> None:
    """Measure everything and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CSV")
    parser.add_argument("--repeats", type=int, default=50, help="of which the median is written")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device")
    where = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(),
        "driver": _driver(),
        "torch": torch.__version__,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.output.with_name(f".{arguments.output.name}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in _measurements(arguments.repeats):
            writer.writerow(where | row)
            print(*row.values())
    temporary.replace(arguments.output)


def _measurements(repeats: int) -> Iterator[dict[str, Any]]:
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for name, tensor in MODELS.items():
        model = load_model(name, ModelConfig)
        for batch in BATCHES:
            trace = generate_llm(model, np.ones(batch, dtype=np.int64), tensor_parallel=tensor)
            for operator in trace.operators:
                if operator.op == "gemm":
                    (m, k), n = operator.inputs[0].shape, operator.outputs[0].shape[1]
                    seconds = _median_seconds(_gemm(m, k, n), flush, repeats)
                    yield _row(name, tensor, batch, 1, operator.name, seconds)
            for context in CONTEXTS:
                run = _attention(batch, model.heads // tensor, model.kv_heads // tensor, context, model.head_size)
                yield _row(name, tensor, batch, context, "attention", _median_seconds(run, flush, repeats))


def _row(model: str, tensor: int, batch: int, context: int, kernel: str, seconds: float) -> dict[str, Any]:
    return {
        "model": model,
        "tensor": tensor,
        "batch": batch,
        "context": context,
        "kernel": kernel,
        "seconds": f"{seconds:.9f}",
    }


def _gemm(m: int, k: int, n: int) -> Callable[[], torch.Tensor]:
    """[M, K] x [K, N] with bias, fp16; weights as PyTorch's linear layers keep them."""
    left, weight, bias = _random(m, k), _random(n, k), _random(n)
    return lambda: torch.nn.functional.linear(left, weight, bias)


def _attention(batch: int, heads: int, kv_heads: int, context: int, size: int) -> Callable[[], torch.Tensor]:
    """One new token of every request looks at ``context`` tokens."""
    queries = _random(batch, heads, 1, size)
    keys, values = _random(batch, kv_heads, context, size), _random(batch, kv_heads, context, size)
    shared = {"enable_gqa": True} if kv_heads < heads else {}
    return lambda: torch.nn.functional.scaled_dot_product_attention(queries, keys, values, **shared)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float16, device="cuda")


def _median_seconds(run: Callable[[], torch.Tensor], flush: torch.Tensor, repeats: int) -> float:
    """Time on the device; the flush keeps it busy while the kernel is launched, so that launching is not measured."""
    for _ in range(5):
        run()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(times)


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()[0]


if __name__ == "__main__":
    main()
