"""``memory replay`` and ``memory list``: traces, errors, and the figures that they report."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_cases import Captured
from cli_cases import run as run_program
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import memory, variants

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.errors import InputError
from neupims_sim.memory import (
    COMMANDS,
    READ,
    WRITE,
    PimProgram,
    Replay,
    Requests,
    check_commands,
    parse_program,
    read_requests,
    replay_requests,
    resolve,
    stream_requests,
)
from neupims_sim.memory import replay as replay_module
from neupims_sim.memory.device import CommandDevice
from neupims_sim.memory.program import GWRITE, TILE


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    return run_program(capsys, "memory", *arguments)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# --- the trace format ---


def test_a_trace_is_an_address_a_kind_and_a_cycle_per_line(tmp_path: Path) -> None:
    text = "0x40 READ 0\n\n  0X1aBc\tWRITE  12 \r\n# a comment\n0x0 READ 999999999999 # another\n   \n0xFFFFFFFFFFFFFFF READ 7"
    requests = read_requests(write(tmp_path / "t", text))
    assert requests.address.tolist() == [0x40, 0x1ABC, 0, 0xFFF_FFFF_FFFF_FFFF]
    assert requests.kind.tolist() == [READ, WRITE, READ, READ]
    assert requests.cycle.tolist() == [0, 12, 999_999_999_999, 7]


@pytest.mark.parametrize(
    "line",
    [
        "0x40",
        "0x40 READ",
        "0x40 REA",
        "0x",
        "0",
        "40 READ 0",
        "0x40READ 0",
        "0x40 READ0",
        "0x40 Read 0",
        "0x40 READER 0",
        "0x40 ACT 0",
        "0x READ 0",
        "0xg READ 0",
        "0x40 READ -1",
        "0x40 READ 1.5",
        "0x40 READ 0x1",
        "0x40 READ 1 2",
        "0x1000000000000000 READ 0",
        "0x40 READ 1000000000000",
        "address,kind,cycle",
        "\xff\x00",
    ],
)
@pytest.mark.parametrize("rest", ["\n0x80 READ 1\n", ""], ids=["inside", "truncated"])
def test_a_bad_line_is_named(tmp_path: Path, line: str, rest: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(("0x0 READ 0\n\n" + line + rest).encode("latin-1"))
    with pytest.raises(InputError) as error:
        read_requests(path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert "allowed: '0xADDRESS READ|WRITE CYCLE'" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_address_beyond_the_capacity_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t", "# header\n0x0 READ 0\n\n0x3fffffff READ 0\n0x40000000 WRITE 0\n")
    with pytest.raises(InputError, match=rf"^{path}:5: address 0x40000000 is beyond the memory; .*below 0x40000000"):
        read_requests(path, 1 << 30)
    assert len(read_requests(path, 1 << 31)) == 3


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_trace_without_requests_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="holds no request"):
        read_requests(write(tmp_path / "t", text))


def test_a_trace_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: the trace cannot be read"):
        read_requests(tmp_path / "none")


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"\xef\xbb\xbf0x40 READ 0\r\n")
    assert read_requests(path).address.tolist() == [0x40]
    path.write_bytes(b"\xef\xbb\xbfGWRITE 3\n")
    assert parse_program(path, memory("hbm2_pim_dual")).operations.tolist() == [[GWRITE, 3, 0, 0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"0x40 READ 0\n" * 1000, mtime=0), "is compressed"),
        (b"0x40 READ 0\n#" + b"x" * (3 << 20), ":2: a line of more than 65536 bytes"),
        (b"\x00" * (3 << 20), ":1: a line of more than 65536 bytes"),
        (b"0x40 READ 0\n0x40 \xff 0\n", ":2: "),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_requests(path)
    assert str(error.value).isprintable()


# --- PIM programs ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("TILE 1000 4 100000", "a row holds 32 dot-products in all; allowed: readouts x dot-products of at most 32"),
        ("TILE 1000 33 1", "a row holds 32"),
        ("TILE 1000 1 33", "a row holds 32"),
        ("TILE 1000 99999999999 99999999999", "a row holds 32"),
        ("TILE 1000 0 8", "at least one readout"),
        ("TILE 1000 8 0", "at least one readout"),
        ("TILE 32768 1 1", "row 32768; allowed: 0 to 32767"),
        ("GWRITE 32768", "row 32768; allowed: 0 to 32767"),
        ("GWRITE 9223372036854775808", "is not a PIM macro-command"),
        ("GWRITE -1", "is not a PIM macro-command"),
        ("GWRITE \u0663", "is not a PIM macro-command"),
        ("TILE 1 2", "is not a PIM macro-command"),
    ],
)
def test_a_macro_command_out_of_range_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "p", f"# a program\nGWRITE 0\n{line}\n")
    with pytest.raises(InputError, match=rf"^{path}:3: .*{message}"):
        parse_program(path, memory("hbm2_pim_dual"))


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"GWRITE 0\n\xff\n", gzip.compress(b"GWRITE 0\n", mtime=0)])
def test_a_program_that_is_no_text_or_empty_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is empty|:2: cannot be read|is compressed"):
        parse_program(path, memory("hbm2_pim_dual"))


def test_the_longest_tile_fills_a_row_of_its_elements(tmp_path: Path) -> None:
    path = write(tmp_path / "p", "TILE 0 8 4\nTILE 1 1 32\n")
    assert len(parse_program(path, memory("hbm2_pim_dual"))) == 2
    write(path, "TILE 0 1 64\n")
    assert len(parse_program(path, memory("hbm2_pim_dual"), element_bytes=1)) == 1
    with pytest.raises(InputError, match="holds 16 dot-products"):
        parse_program(path, memory("hbm2_pim_dual"), element_bytes=4)


# --- replaying ---


@pytest.mark.parametrize("posted", [False, True])
def test_inv_2_every_request_moves_once_on_the_channel_that_holds_it(posted: bool) -> None:
    config = load_memory("hbm2", "physical", {"organization.channels": 4, "controller.posted_writes": posted})
    rng = np.random.default_rng(3)
    address = rng.integers(0, 1 << 22, 3000)
    kind = (rng.random(3000) < 0.3).astype(np.int64)
    result = replay_requests(resolve(config), Requests(address, kind, np.zeros(3000, dtype=np.int64)), log=True)
    assert result.log is not None
    for which, command in ((READ, "RD"), (WRITE, "WR")):
        moved = result.log[result.log[:, 2] == COMMANDS.index(command)]
        asked = np.bincount(address[kind == which] // 64 // 32 % 4, minlength=4)  # channel: above 32 bursts of a row
        assert np.bincount(moved[:, 1], minlength=4).tolist() == asked.tolist()
        assert result.commands[command] == len(moved)
    assert (result.reads, result.writes) == (int((kind == READ).sum()), int((kind == WRITE).sum()))
    assert check_commands(config, result.log) == []


def test_one_read_takes_activation_and_latency() -> None:
    config = load_memory("hbm2", "physical", {"organization.channels": 1})
    result = replay_requests(resolve(config), Requests(*np.array([[64], [READ], [100]])))
    assert result.cycles == result.memory_cycles == 100 + 14 + 14 + 2  # tRCD, CL, burst
    assert result.mean_read_latency_cycles == 30
    assert result.bandwidth_gbps == pytest.approx(64 / 130)
    assert result.pim_cycles == 0


def test_requests_are_offered_from_their_cycle_on_one_per_cycle_in_order() -> None:
    """The second waits for the first although its own cycle has passed."""
    config = load_memory("hbm2", "physical", {"organization.channels": 1})
    requests = Requests(*np.array([[0, 64], [READ, READ], [500, 3]]))
    result = replay_requests(resolve(config), requests)
    assert result.cycles == 500 + 14 + 2 + 14 + 2
    assert result.mean_read_latency_cycles == (30 + 31) / 2


def test_pim_and_requests_go_in_parallel_with_dual_row_buffers() -> None:
    spec = resolve(load_memory("hbm2_pim_dual", "physical", {"organization.channels": 1}))
    program = PimProgram.build([(GWRITE, 0, 0, 0), *((TILE, 1000 + i, 4, 8) for i in range(40))])
    zero = np.zeros(4000, dtype=np.int64)
    requests = Requests(np.arange(4000) * 64 + (5000 << 15), zero, zero)
    alone, traffic = replay_requests(spec, None, program), replay_requests(spec, requests)
    both = replay_requests(spec, requests, program)
    assert (alone.memory_cycles, alone.bandwidth_gbps, alone.mean_read_latency_cycles) == (0, 0, 0)
    assert both.cycles == max(both.memory_cycles, both.pim_cycles)
    assert both.cycles < 0.75 * (alone.cycles + traffic.cycles)
    assert both.commands["GEMV"] == 160


def test_an_address_beyond_the_capacity_is_refused() -> None:
    spec = resolve(load_memory("hbm2", "physical", {"organization.channels": 1}))
    with pytest.raises(InputError, match="request 1 is at 0x40000000"):
        replay_requests(spec, Requests(*np.array([[0, 1 << 30], [0, 0], [0, 0]])))


# --- the command line ---


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write(
        tmp_path / "trace", "".join(f"0x{64 * i:x} {'WRITE' if i % 4 == 3 else 'READ'} 0\n" for i in range(400))
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return write(tmp_path / "program", "GWRITE 100\nTILE 101 4 8\n")


def test_replay_json_is_one_object_with_the_documented_keys(capsys: Captured, trace: Path, program: Path) -> None:
    code, out, err = run(capsys, "replay", "hbm2_pim_dual", trace, "--pim", program, "--channels", "1", "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert set(figures) == {
        "cycles",
        "memory_cycles",
        "pim_cycles",
        "reads",
        "writes",
        "mean_read_latency_cycles",
        "bandwidth_gbps",
        "commands",
        "wall_seconds",
    }
    assert (figures["reads"], figures["writes"]) == (300, 100)
    assert figures["cycles"] == max(figures["memory_cycles"], figures["pim_cycles"])
    commands = figures["commands"]
    assert [commands[name] for name in ("RD", "WR", "GWRITE", "GEMV")] == [300, 100, 1, 4]


def test_replay_prints_a_table(capsys: Captured, trace: Path) -> None:
    code, out, _ = run(capsys, "replay", "hbm2", trace)
    assert code == 0
    assert "bandwidth, GB/s" in out


def test_replay_on_one_channel_is_slower_than_on_all(capsys: Captured, trace: Path) -> None:
    cycles = [
        json.loads(run(capsys, "replay", "hbm2", trace, "--json", *n)[1])["cycles"] for n in ([], ["--channels", "1"])
    ]
    assert cycles[0] < cycles[1]


def test_replay_takes_the_assumptions_of_a_preset(capsys: Captured, program: Path) -> None:
    arguments = ["replay", "hbm2_pim_dual", "--pim", program, "--json"]
    physical, published = (json.loads(run(capsys, *arguments, *more)[1]) for more in ([], ["--preset", "asplos24"]))
    assert published["pim_cycles"] < physical["pim_cycles"]  # its result does not wait for the dot-products


def test_replay_writes_every_command(capsys: Captured, trace: Path, tmp_path: Path) -> None:
    _, out, _ = run(capsys, "replay", "hbm2", trace, "--json", "--commands", tmp_path / "c.csv")
    table = pd.read_csv(tmp_path / "c.csv")
    assert list(table.columns) == ["cycle", "command", "channel", "rank", "bank_group", "bank", "row", "column"]
    assert table["cycle"].is_monotonic_increasing
    counts = {name: count for name, count in json.loads(out)["commands"].items() if count}
    assert table["command"].value_counts().to_dict() == counts


def test_replay_reads_a_memory_of_the_user(capsys: Captured, trace: Path, tmp_path: Path) -> None:
    own = write(tmp_path / "own.yaml", "base: hbm2\nname: own\norganization: {channels: 2}\n")
    code, out, _ = run(capsys, "replay", own, trace, "--json")
    assert (code, json.loads(out)["reads"]) == (0, 300)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hbm2"], "nothing to replay"),
        (["hbm9", "TRACE"], "no such file in configs/memory"),
        (["hbm2", "nothing.trace"], "nothing.trace: the trace cannot be read"),
        (["hbm2", "TRACE", "--pim", "PROGRAM"], "has no PIM"),
        (["hbm2_pim_dual", "--pim", "nothing.pim"], "no such PIM program file"),
        (["hbm2_pim_dual", "--pim", "TRACE"], "trace:1: '0x0 READ 0' is not a PIM macro-command"),
        (["hbm2", "PROGRAM"], "program:1: 'GWRITE 100' is not a request"),
        (["hbm2", "TRACE", "--channels", "3"], "--channels 3"),
        (["hbm2", "TRACE", "--channels", "0"], "--channels 0"),
        (["hbm2", "TRACE", "--preset", "asplos"], "did you mean asplos24?"),
        (["ideal", "TRACE"], "model 'ideal'"),
        (["hbm2", "TRACE", "--commands", "no/such/folder.csv"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: Captured, trace: Path, program: Path, arguments: list[str], message: str
) -> None:
    files = {"TRACE": trace, "PROGRAM": program}
    code, out, err = run(capsys, "replay", *(files.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_list_names_every_memory(capsys: Captured) -> None:
    code, out, _ = run(capsys, "list", "--json")
    assert code == 0
    assert json.loads(out)["hbm2_pim_dual"] == {
        "title": "HBM2 PIM, dual row buffers",
        "model": "command",
        "row_buffers": "dual",
        "channels": 32,
        "capacity_gib": 32.0,
        "peak_gbps": 1024.0,
        "file": "configs/memory/hbm2_pim_dual.yaml",
    }
    assert "hbm2_pim_blocked" in run(capsys, "list")[1]


def test_the_words_of_dramsim3_are_read_too(tmp_path: Path) -> None:
    words = ["READ", "read", "P_MEM_RD", "P_FETCH", "WRITE", "write", "P_MEM_WR", "BOFF"]
    requests = read_requests(write(tmp_path / "t.trace", "".join(f"0x40 {word} 0\n" for word in words)))
    assert requests.kind.tolist() == [READ] * 4 + [WRITE] * 4


# --- traces in parts ---


@settings(max_examples=60)
@given(
    variants(),
    st.integers(0, 2**32 - 1),
    st.integers(1, 200),
    st.sampled_from([1, 200, 4000]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.lists(st.integers(1, 199), max_size=8),
    st.booleans(),
)
def test_the_result_depends_neither_on_where_a_trace_is_cut_nor_on_how_far_channels_run_apart(
    variant: tuple[MemoryConfig, str],
    seed: int,
    count: int,
    span: int,
    writes: float,
    cuts: list[int],
    per_channel: bool,
) -> None:
    config, preset = variant
    spec = resolve(config, preset)
    rng = np.random.default_rng(seed)
    reach = min(config.organization.capacity_bytes, int(rng.choice([1 << 12, 1 << 16, 1 << 22])))
    whole = Requests(
        rng.integers(0, reach, count), (rng.random(count) < writes).astype(int), np.sort(rng.integers(0, span, count))
    )
    edges = sorted({0, count, *(cut for cut in cuts if cut < count)})
    parts = [
        Requests(*(getattr(whole, name)[i:j] for name in ("address", "kind", "cycle"))) for i, j in pairwise(edges)
    ]
    program = PimProgram.build([(GWRITE, 0, 0, 0), (TILE, 900, 4, 8), (TILE, 901, 1, 8)]) if spec.has_pim else None

    def replayed(requests: Requests | Iterator[Requests]) -> Replay:
        return replay_requests(spec, requests, program, log=True, per_channel=per_channel)

    at_once = replayed(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            replay_module, "CommandDevice", partial(CommandDevice, most_window_cycles=int(rng.integers(1, 60)))
        )
        apart = replayed(whole)
    for other in (replayed(iter(parts)), apart):
        assert other.log is not None
        assert at_once.log is not None
        assert np.array_equal(at_once.log, other.log)
        assert replace(at_once, log=None, wall_seconds=0) == replace(other, log=None, wall_seconds=0)
    assert check_commands(config, at_once.log, preset=preset) == []  # type: ignore[arg-type]


def test_one_source_offers_one_request_per_cycle_to_all_channels() -> None:
    """20,000 sequential reads of 8 channels need 20,000 cycles at least; with a source per channel an eighth of that."""
    spec = resolve(memory("hbm2", channels=8))
    zero = np.zeros(20_000, dtype=np.int64)
    requests = Requests(np.arange(20_000) * 64, zero, zero)
    assert 20_000 < replay_requests(spec, requests).cycles < 20_000 * 1.02
    assert replay_requests(spec, requests, per_channel=True).cycles < 20_000 * 1.1 * 2 / 8


def test_a_request_waits_for_the_one_before_it_although_its_own_channel_is_idle() -> None:
    """Conflicts fill the queue of channel 0 (32 transactions and 8 of the bank): what comes behind waits, in order."""
    spec = resolve(memory("hbm2", channels=2))
    conflicts = np.arange(60) * spec.config.organization.row_bytes * 32
    requests = Requests(np.append(conflicts, 2048), np.zeros(61, int), np.zeros(61, int))
    logs = [replay_requests(spec, requests, log=True, per_channel=separate).log for separate in (False, True)]
    first = [int(log[log[:, 1] == 1][0, 0]) for log in logs if log is not None]
    assert first[1] == 0
    assert first[0] > 19 * 48  # of the 60 conflicts 41 are accepted before the first one has left; 48 cycles each


def test_a_source_per_channel_is_an_option_of_the_command_line(capsys: Captured, tmp_path: Path) -> None:
    trace = write(tmp_path / "t", "".join(f"0x{64 * i:x} READ 0\n" for i in range(640)))
    cycles = [
        json.loads(run(capsys, "replay", "hbm2", trace, "--json", *option)[1])["cycles"]
        for option in ([], ["--per-channel"])
    ]
    assert cycles[0] > 640 > 200 > cycles[1]


def test_a_file_is_read_in_parts_with_the_right_line_numbers(tmp_path: Path) -> None:
    lines = [f"{64 * i:#x} READ {i}" for i in range(1000)]
    path = write(tmp_path / "t.trace", "\n".join(lines))
    parts = list(stream_requests(path, block_bytes=500))
    assert len(parts) > 20
    assert np.array_equal(np.concatenate([part.cycle for part in parts]), np.arange(1000))
    write(path, "\n".join([*lines, "0x40 REED 7"]))
    with pytest.raises(InputError, match=r"t.trace:1001: '0x40 REED 7' is not a request"):
        list(stream_requests(path, block_bytes=500))
    with pytest.raises(InputError, match=r"t.trace:801: address 0xc800 is beyond the memory"):
        list(stream_requests(path, 800 * 64, block_bytes=500))
