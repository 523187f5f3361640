#!/usr/bin/env bash
# SCALE-Sim 3.0.0 as pip installs it today does not simulate a single layer: it names no bound for NumPy, and NumPy 2.4 refuses to make a number
# of an array with one element in two dimensions.
#
# The dependencies of scalesim 3.0.0 allow numpy 2.4.6. The first layer of any topology then ends in
#   TypeError: only 0-dimensional arrays can be converted to Python scalars
# in scalesim/memory/double_buffered_scratchpad_mem.py (total_cycles = int(max(...)) over rows of one element). With numpy 2.3.5 the same files run.
#
# Seen 2026-11-27 on Python 3.11. Exits 1 if numpy 2.4.6 works, or 2.3.5 no longer does.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"
"$work/venv/bin/pip" install -q --disable-pip-version-check scalesim==3.0.0 numpy==2.4.6
printf 'Layer,M,N,K,\ng,4,4,4,\n' > gemm.csv
cat > array.cfg <<'CFG'
[general]
run_name = r
[architecture_presets]
ArrayHeight: 4
ArrayWidth: 4
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow : ws
Bandwidth : 10
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
CFG
run() { venv/bin/python -W ignore -m scalesim.scale -c array.cfg -t gemm.csv -l gemm.csv -i gemm -p "$1" > "$1.txt" 2>&1; }
if run new; then echo "numpy 2.4.6: runs"; exit 1; fi
echo "numpy 2.4.6: $(tail -1 new.txt)"
grep -q "only 0-dimensional arrays can be converted to Python scalars" new.txt
"$work/venv/bin/pip" install -q --disable-pip-version-check numpy==2.3.5
run old
echo "numpy 2.3.5: $(sed -n 2p old/r/COMPUTE_REPORT.csv)"
