#!/usr/bin/env bash
# In the measured tables of aiconfigurator-core 0.12.0 experts in fp8 take three times as long as the same experts in bf16, for few tokens on H200.
#
# vLLM 0.24.0 on H200, Mixtral's experts (8 of 14336 x 4096, 2 per token, one device), 1 token: 0.63 ms in fp8, 0.19 in bf16, 0.15 with block scales
# (fp8_block). Half the bytes should take half the time: decoding one token is bound by reading weights. The fp8 rows come from another kernel
# (vllm_modeloptfp8moe_flashinfer_cutlass) than the others (Triton). All shapes of the table show it up to some 64 tokens, so a model that takes
# "fp8" from this table prices per-tensor fp8 MoE decoding on Hopper far above what bf16 costs.
#
# Seen 2026-11-27. Exits 1 if fp8 is faster than bf16 at 1 token for any shape that has both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check aiconfigurator-core==0.12.0
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

systems = Path(find_spec("aiconfigurator_core").origin).parent / "systems"
moe = pd.read_parquet(systems / "data" / "h200_sxm" / "moe" / "vllm" / "0.24.0" / "moe_perf.parquet")
moe = moe[(moe.moe_tp_size == 1) & (moe.moe_ep_size == 1) & (moe.distribution == "power_law_1.2")]
shape = ["hidden_size", "inter_size", "num_experts", "topk"]
table = moe.pivot_table(index=[*shape, "num_tokens"], columns="moe_dtype", values="latency", aggfunc="min")[["bfloat16", "fp8", "fp8_block"]]
few = table.xs(1, level="num_tokens").dropna(subset=["bfloat16", "fp8"])
print("1 token, ms:", few.round(3).to_string(), sep="\n")
mixtral = table.loc[(4096, 14336, 8, 2)]
print("Mixtral's experts over tokens, ms:", mixtral.round(3).to_string(), sep="\n")
kernels = moe[moe.moe_dtype.isin(["bfloat16", "fp8", "fp8_block"])].groupby("moe_dtype").kernel_source.unique()
print(kernels.to_string())
ratio = few["fp8"] / few["bfloat16"]
print(f"fp8 / bf16 at 1 token: {ratio.min():.2f} to {ratio.max():.2f}")
sys.exit(0 if ratio.min() > 1 else 1)
PY
