"""Files of every kind that the program reads, whole and damaged."""

from __future__ import annotations

import gzip
import io
import random
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_cases
import pytest

from fuzz.execution import Case
from fuzz.fields import BASES
from neupims_sim.cli import main
from neupims_sim.config import dump_config, load_config

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


class Seed(NamedTuple):
    """A valid file, and calls that read it."""

    kind: str
    name: str
    content: bytes
    calls: tuple[tuple[str, ...], ...]
    """Arguments; they name the file as it is called."""
    others: Mapping[str, bytes]
    """Files that lie beside it."""
    codes: tuple[int, ...] = (0,)


def file_cases(seed: int, per_seed: int = 40) -> Iterator[Case]:
    """Every kind of file, first whole, then with random damage."""
    draw = random.Random(seed)
    for file in seeds():
        for call in file.calls:
            yield Case(f"files, {file.kind}", "whole", call, {**file.others, file.name: file.content}, file.codes)
    for _ in range(per_seed):
        for file in seeds():
            damage = draw.choice(list(_DAMAGES))
            content = _DAMAGES[damage](file.content, draw)
            call = draw.choice(file.calls)
            yield Case(f"files, {file.kind}", damage, call, {**file.others, file.name: content}, file.codes)
    for file in seeds():
        yield Case(f"files, {file.kind}", "missing", file.calls[0], file.others, file.codes)
        yield Case(f"files, {file.kind}", "a folder", file.calls[0], {**file.others, file.name: None}, file.codes)


# --- damages ---


def _truncated(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _flipped(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 3, 30))):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _inserted(what: bytes) -> Callable[[bytes, random.Random], bytes]:
    def damage(content: bytes, draw: random.Random) -> bytes:
        place = draw.randrange(len(content) + 1)
        return content[:place] + what + content[place:]

    return damage


_NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"-Infinity", b"9007199254740993", b"9223372036854775808", b"1000000000", b"1e9", b"0.5",
    b"9" * 5_000, b"01", b"1_0", b"0x10", b'""', b"null", b"[]", b"{}", b"true")  # fmt: skip


def _other_number(content: bytes, draw: random.Random) -> bytes:
    places = list(re.finditer(rb"-?\d+(\.\d+)?", content))
    if not places:
        return content
    place = draw.choice(places)
    return content[: place.start()] + draw.choice(_NUMBERS) + content[place.end() :]


def _other_word(content: bytes, draw: random.Random) -> bytes:
    places = list(re.finditer(rb"[A-Za-z_]+", content))
    if not places:
        return content
    place = draw.choice(places)
    other = draw.choice((b"x", b"", b"null", b"A" * 100_000, b"\xff\xfe", draw.choice(places)[0]))
    return content[: place.start()] + other + content[place.end() :]


def _without_a_line(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def _with_a_line_twice(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = draw.randrange(len(lines)) if lines else 0
    return b"".join([*lines[:place], *lines[place : place + 1], *lines[place:]])


def _recoded(encoding: str) -> Callable[[bytes, random.Random], bytes]:
    def damage(content: bytes, draw: random.Random) -> bytes:
        return content.decode("utf-8", errors="replace").encode(encoding, errors="replace")

    return damage


def _gzip(content: bytes, level: int = 9) -> bytes:
    return gzip.compress(content, level, mtime=0)


def _compressed(content: bytes, draw: random.Random) -> bytes:
    return _gzip(content)


def _truncated_gzip(content: bytes, draw: random.Random) -> bytes:
    return _gzip(content)[:-6]


def _gzip_bomb(content: bytes, draw: random.Random) -> bytes:
    return _gzip(content + b" " * 2**28, level=1)


def _noise(content: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice((1, 20, 3_000)))


_DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda content, draw: b"",
    "truncated": _truncated,
    "bytes changed": _flipped,
    "noise": _noise,
    "null bytes": _inserted(b"\0" * 10),
    "byte order mark": lambda content, draw: b"\xef\xbb\xbf" + content,
    "UTF-16": _recoded("utf-16"),
    "Latin-1": _inserted(b"\xe9\xfc"),
    "carriage returns": lambda content, draw: content.replace(b"\n", b"\r\n"),
    "brackets": _inserted(b"[" * 100_000),
    "braces": _inserted(b'{"a":' * 20_000),
    "a long line": _inserted(b"x" * 5_000_000),
    "many lines": _inserted(b"\n1,2\n" * 200_000),
    "another number": _other_number,
    "a further number": _other_number,
    "another word": _other_word,
    "a line less": _without_a_line,
    "a line twice": _with_a_line_twice,
    "compressed": _compressed,
    "truncated gzip": _truncated_gzip,
    "gzip that expands": _gzip_bomb,
    "deep YAML": lambda content, draw: content + b"\nzz: " + b"{a: " * 3_000,
    "aliases": lambda content, draw: content + b"".join(
        b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9) if i else b"x") for i in range(12)
    ),
}  # fmt: skip


# --- the files ---


def settings_of(base: str) -> str:
    """A small configuration as arguments."""
    system, *settings = BASES[base]
    return shlex.join([system, *(text for setting in settings for text in ("--set", setting))])


@cache
def seeds() -> tuple[Seed, ...]:
    """A valid file of every kind, and the calls that read it."""
    made, decode = _made(), settings_of("decode in PIM")
    resolved = dump_config(load_config(BASES["decode in PIM"][0], BASES["decode in PIM"][1:]))
    reads = {"r.txt": _READS}
    replay = "memory replay hbm2 r.txt --channels 1"
    served = "--set serving.scheduler.num_gpu_blocks=64 --set 'serving.cost={model: constant, seconds: 0.01}'"
    serve = f"serve {decode} --requests q.csv {served} --out out"
    return (
        _seed("configuration", "c.yaml", _CONFIG, ("run c.yaml --out out", "config show c.yaml", "config check c.yaml")),
        _seed("resolved configuration", "c.yaml", resolved, ("run c.yaml --out out",)),
        _seed(
            "memory table", "m.yaml", (ROOT / "configs/memory/hbm2.yaml").read_bytes(),
            ("memory show m.yaml", "config check m.yaml", "memory replay m.yaml r.txt --channels 1"), reads,
        ),
        _seed("sweep", "s.yaml", _SWEEP, ("sweep s.yaml --out o --workers 1",), codes=(0, 1)),
        _seed("request batch", "b.csv", "seq_len,ch_idx\n100,0\n200,1\n300,2\n50,3\n",
              (f"run {decode} --set workload.requests=b.csv --out out",)),
        _seed("lengths", "traces/lengths/mine.csv", (ROOT / "traces/lengths/alpaca.csv").read_bytes(),
              (f"run {decode} --set workload.dataset=mine --out out",)),
        _seed("trace", "t.jsonl", made["t.jsonl"], ("trace check t.jsonl", "trace show t.jsonl",
              "run npu_only --set 'workload={name: t, kind: trace, path: t.jsonl}' --out out")),
        _seed("compressed trace", "t.jsonl.gz", _gzip(made["t.jsonl"]), ("trace check t.jsonl.gz", "trace show t.jsonl.gz")),
        _seed("ONNX", "m.onnx", made["m.onnx"], ("trace import onnx m.onnx -o t.jsonl",)),
        _seed("config.json", "gpt2.json", (GOLDEN / "import/gpt2.json").read_bytes(),
              ("trace import huggingface gpt2.json -o t.jsonl", "trace import huggingface gpt2.json -o m.yaml")),
        _seed("config.json of a ViT", "vit.json", (GOLDEN / "import/vit-base.json").read_bytes(),
              ("trace import huggingface vit.json -o t.jsonl",)),
        _seed("topology", "l.csv", (GOLDEN / "import/layers.csv").read_bytes(), ("trace import scalesim l.csv -o t.jsonl",)),
        _seed("GEMM topology", "g.csv", (GOLDEN / "import/gemm.csv").read_bytes(), ("trace import scalesim g.csv -o t.jsonl",)),
        _seed("DRAMsim3", "d.ini", _INI, ("memory import d.ini -o m.yaml",)),
        _seed("memory trace", "r.txt", _READS * 20, (replay, "memory timeline hbm2 r.txt --channels 1 -o l.svg")),
        _seed("PIM program", "p.txt", "GWRITE 0\nTILE 1000 4 8\nTILE 1001 4 8\n",
              ("memory replay hbm2_pim_dual r.txt --pim p.txt --channels 1",), reads),
        _seed("commands", "k.csv", made["k.csv"], ("memory timeline hbm2 --commands k.csv -o l.svg",)),
        _seed("request stream", "q.csv", "arrival_s,prompt_tokens,output_tokens\n0,100,10\n0.5,50,5\n1,10,1\n", (serve,)),
        _seed("descriptors", "q.npy", made["q.npy"], ("retrieve q.npy d.npy --top 3", "retrieve d.npy q.npy --rerank"),
              {"d.npy": made["d.npy"]}),
        *_parts("results", "o", made, ("points.csv", "sweep.yaml"), ("results o", "plot o", "report o")),
        *_parts("results with a store", "o", made, ("store.sqlite", "points.csv", "sweep.yaml"), ("results o", "plot o", "report o")),
        *_parts("run", "w", made, _RUN, ("report w", "results .")),
    )  # fmt: skip


def _seed(
    kind: str,
    name: str,
    content: bytes | str,
    calls: Sequence[str],
    others: Mapping[str, bytes] | None = None,
    codes: tuple[int, ...] = (0,),
) -> Seed:
    written = content.encode() if isinstance(content, str) else content
    return Seed(kind, name, written, tuple(tuple(shlex.split(call)) for call in calls), others or {}, codes)


def _parts(
    kind: str, folder: str, made: Mapping[str, bytes], names: Sequence[str], calls: Sequence[str]
) -> Iterator[Seed]:
    """Each file of a folder, the others beside it."""
    for name in names:
        others = {f"{folder}/{other}": made[f"{folder}/{other}"] for other in names if other != name}
        yield _seed(f"{kind}: {name}", f"{folder}/{name}", made[f"{folder}/{name}"], calls, others)


_READS = b"0x40 READ 0\n0x80 WRITE 3\n0x4000 READ 10\n"
_CONFIG = """
include: neupims
model: {name: m, layers: 2, heads: 8, d_model: 256, d_ff: 256, vocabulary: 100, max_positions: 4096}
parallel: {tensor: 1, pipeline: 1}
workload: {batch_size: 4, warmup: {iterations: 20}}
"""
_RUN = ("config.yaml", "result.json", "operators.csv", "provenance.json")
_SWEEP = """
name: small
base:
  model: {name: m, layers: 2, heads: 8, d_model: 256, d_ff: 256, vocabulary: 100, max_positions: 4096}
  parallel: {tensor: 1, pipeline: 1}
  workload.warmup.iterations: 20
grid: {system: [npu_only, neupims], workload.batch_size: [2, 4]}
metrics: [throughput_tokens_per_s, utilization.npu, cycles]
derive: {twice: "cycles * 2"}
labels: {cycles: {name: Cycles, unit: million, factor: 1.0e-6, decimals: 3}}
plot: {kind: throughput_bars}
tables: [{title: T, rows: [system, workload.batch_size], value: cycles}]
"""
_INI = """
[dram_structure]
protocol = DDR4
bankgroups = 4
banks_per_group = 4
rows = 65536
columns = 1024
device_width = 8
BL = 8
[timing]
tCK = 0.63
AL = 0
CL = 22
CWL = 16
tRCD = 22
tRP = 22
tRAS = 52
tRFC = 560
tRFC2 = 416
tRFC4 = 256
tREFI = 12480
tRPRE = 1
tWPRE = 1
tRRD_S = 4
tRRD_L = 8
tWTR_S = 4
tWTR_L = 12
tFAW = 34
tWR = 24
tCCD_S = 4
tCCD_L = 8
tXS = 576
tCKE = 8
tCKESR = 9
tXP = 10
tRTRS = 1
[power]
VDD = 1.2
IDD0 = 57
IDD2P = 25
IDD2N = 37
IDD3P = 43
IDD3N = 52
IDD4W = 150
IDD4R = 168
IDD5AB = 250
IDD6x = 30
[system]
channel_size = 4096
channels = 1
bus_width = 64
address_mapping = rochrababgco
queue_structure = PER_BANK
refresh_policy = RANK_LEVEL_STAGGERED
row_buf_policy = OPEN_PAGE
cmd_queue_size = 8
trans_queue_size = 32
"""


@cache
def _made() -> dict[str, bytes]:
    """What the program itself, or a library, writes."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-made-"))
    try:
        (folder / "s.yaml").write_text(_SWEEP)
        (folder / "r.txt").write_text("0x40 READ 0\n0x80 WRITE 3\n")
        _called("sweep", str(folder / "s.yaml"), "--out", str(folder / "o"), "--workers", "1")
        _called("run", *shlex.split(settings_of("decode in PIM")), "--out", str(folder / "w"))
        _called("trace", "vit", "vit-s16", "--image-size", "32", "-o", str(folder / "t.jsonl"))
        _called(
            "memory", "replay", "hbm2", str(folder / "r.txt"), "--channels", "1", "--commands", str(folder / "k.csv")
        )
        made = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    finally:
        shutil.rmtree(folder)
    made["m.onnx"] = onnx_cases.vit(1, 2, 8, 16, 4, 8, 10, 1).proto().SerializeToString()
    random_rows = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    random_rows /= np.linalg.norm(random_rows, axis=1, keepdims=True)
    for name, rows in (("q.npy", random_rows[:2]), ("d.npy", random_rows)):
        written = io.BytesIO()
        np.save(written, rows)
        made[name] = written.getvalue()
    return made


def _called(*arguments: str) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert not end.value.code, arguments
