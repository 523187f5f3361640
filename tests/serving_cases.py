"""Golden schedules and small requests for tests of serving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from neupims_sim import load_config
from neupims_sim.config import Config, ServingConfig
from neupims_sim.serving import ServingResult, serve

GOLDEN = Path(__file__).parent / "golden" / "serving"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))
_NAMES = {
    "num_blocks": "num_gpu_blocks",
    "chunked": "enable_chunked_prefill",
    "prefix_caching": "enable_prefix_caching",
}
Request = tuple[float, int, int]
"""Arrival in seconds, prompt tokens, output tokens."""


def golden(case: str) -> dict[str, Any]:
    """A golden schedule, its options under our names."""
    stored: dict[str, Any] = json.loads((GOLDEN / f"{case}.json").read_text())
    options = {_NAMES.get(name, name): value for name, value in stored["case"]["scheduler"].items()}
    return {"options": options, "requests": stored["case"]["requests"], "steps": stored["steps"]}


def write_golden_requests(requests: list[dict[str, Any]], path: Path) -> None:
    """Requests of a golden schedule in the format of LLMServingSim: step n is second n."""
    lines = []
    for request in requests:
        ids = {"input_tok_ids": request["tokens"]} if "tokens" in request else {}
        prompt = request.get("prompt", len(request.get("tokens", ())))
        lines.append(
            {"input_toks": prompt, "output_toks": request["output"], "arrival_time_ns": request["arrival_step"] * 10**9}
            | ids
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_requests(requests: Sequence[Request], path: Path) -> Path:
    """Our own format."""
    rows = "".join(f"{arrival},{prompt},{output}\n" for arrival, prompt, output in requests)
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + rows)
    return path


def served(
    requests: Sequence[Request] | Path, folder: Path, options: dict[str, Any] | None = None, **scheduler: Any
) -> tuple[ServingResult, list[dict[str, Any]]]:
    """Result and iterations of requests on a server whose iterations take 1 s unless ``options``, parts of ``serving``, say otherwise."""
    path = requests if isinstance(requests, Path) else write_requests(requests, folder / "requests.csv")
    serving: dict[str, Any] = {
        "requests": {"path": str(path)},
        "cost": {"model": "constant", "seconds": 1.0},
        "scheduler": {"num_gpu_blocks": 1001} | scheduler,
    }
    config = npu_only().model_copy(update={"serving": ServingConfig.model_validate(serving | (options or {}))})
    iterations: list[dict[str, Any]] = []
    return serve(config, iterations.append), iterations


@cache
def npu_only() -> Config:
    """The system of tests that are not about hardware."""
    return load_config("npu_only")
