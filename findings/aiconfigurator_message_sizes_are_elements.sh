#!/usr/bin/env bash
# The communication tables of aiconfigurator-core 0.12.0 have a column message_size without a unit. It counts elements, not bytes.
#
# An all-reduce over 8 H200 by NCCL 2.29.2: at the same message_size int8 takes 0.59 to 0.67 of the time of half, as half the bytes do; as bytes
# they would take the same. The frameworks' own all-reduces (bfloat16) take the time of NCCL's half at equal message_size where they fall back to it
# (32 Mi elements and more: within 1.2 %), so theirs are elements, too. Read as bytes every all-reduce of activations gets a time for twice its size.
#
# Seen 2026-11-27. Exits 1 if int8 takes as long as half, or the frameworks' large all-reduces no longer agree with NCCL's.
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

data = Path(find_spec("aiconfigurator_core").origin).parent / "systems" / "data" / "h200_sxm" / "comm"
nccl = pd.read_parquet(data / "nccl" / "2.29.2" / "nccl_perf.parquet")
nccl = nccl[(nccl.op_name == "all_reduce") & (nccl.num_gpus == 8)]
table = nccl.pivot_table(index="message_size", columns="nccl_dtype", values="latency").add_prefix("NCCL ")
for framework, version in (("vllm", "0.24.0"), ("sglang", "0.5.14"), ("trtllm", "1.3.0rc20")):
    own = pd.read_parquet(data / framework / version / "custom_allreduce_perf.parquet")
    own = own[(own.num_gpus == 8) & ~own.kernel_source.str.endswith("eager")]
    table[f"{framework} bfloat16"] = own.groupby("message_size").latency.min()
large = table[table.index >= 2**22].dropna()
print("ms over message_size:", large.round(3).to_string(), sep="\n")
ratio = large["NCCL int8"] / large["NCCL half"]
fallen_back = large[large.index >= 2**25]
apart = max(abs(fallen_back[name] / fallen_back["NCCL half"] - 1).max() for name in large if "bfloat16" in name)
gbps = 2 * 7 / 8 * 2**28 * 2 / (large["NCCL half"].iloc[-1] * 1e-3) / 1e9
print(f"int8 / half: {ratio.min():.2f} to {ratio.max():.2f}; frameworks against NCCL from 32 Mi: within {apart:.1%}; "
      f"bus bandwidth with elements: {gbps:.0f} GB/s, with bytes: {gbps / 2:.0f} GB/s")
sys.exit(0 if ratio.max() < 0.8 and apart < 0.02 else 1)
PY
