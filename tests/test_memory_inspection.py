"""``memory show``, its matrix, logs of commands as tables, ``memory timeline``, and what bad tables and traces are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_cases import Captured
from cli_cases import run as run_program

from neupims_sim.config import MemoryConfig, available, load_memory
from neupims_sim.errors import InputError
from neupims_sim.memory import (
    LOG_FIELDS,
    READ,
    WRITE,
    PimProgram,
    Replay,
    Requests,
    ResolvedSpec,
    replay_requests,
    resolve,
)
from neupims_sim.memory.address import AddressMap
from neupims_sim.memory.command_log import command_table, read_commands
from neupims_sim.memory.inspection import (
    active_constraints,
    declared_commands,
    derived_figures,
    minimum_distances,
    relations,
)
from neupims_sim.memory.legality import addressed_banks
from neupims_sim.memory.program import GWRITE, TILE
from neupims_sim.memory.spec import ACT, COMMANDS, GEMV, HEADER, PIM_ACT, PIM_PRE, PRE, PREA, RD, REF
from neupims_sim.plots.command_timeline import MEMORY, PIM, Opening, draw_command_timeline, row_openings

SHIPPED = [name for name in available("memory") if load_memory(name).model == "command"]
TWO_PSEUDO_CHANNELS = {
    "organization.channels": 1,
    "organization.pseudo_channels": 2,
    "organization.ranks": 2,
    "organization.address_mapping": "rorapcbgbachco",
}


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    return run_program(capsys, "memory", *arguments)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def memory(name: str, **overrides: object) -> MemoryConfig:
    return load_memory(name, overrides={"organization.channels": 1} | overrides)


def log_of(*commands: tuple[int, int, int, int]) -> np.ndarray:
    """A log of one channel from (cycle, command, bank, row)."""
    log = np.full((len(commands), len(LOG_FIELDS)), -1, dtype=np.int64)
    for field, column in (("cycle", 0), ("command", 1), ("bank", 2), ("row", 3)):
        log[:, LOG_FIELDS.index(field)] = [command[column] for command in commands]
    log[:, LOG_FIELDS.index("channel")] = 0
    return log


@pytest.fixture(scope="module")
def dual() -> ResolvedSpec:
    return resolve(memory("hbm2_pim_dual"))


@pytest.fixture(scope="module")
def work(dual: ResolvedSpec) -> Replay:
    """Reads and writes while a PIM program runs, with the commands."""
    index = np.arange(400)
    requests = Requests(index * 64 + (5000 << 15), np.where(index % 40 < 30, READ, WRITE), index)
    return replay_requests(dual, requests, PimProgram.build([(GWRITE, 0, 0, 0), (TILE, 1000, 4, 8)]), log=True)


# --- derived figures ---


def test_the_dual_row_buffer_device_has_the_published_figures(capsys: Captured) -> None:
    """NeuPIMs, Table 2 and section 6: 1024 GB/s, 16.4 TB/s inside, 32 channels of 1 GB with 1 KB pages."""
    code, out, _ = run(capsys, "show", "hbm2_pim_dual", "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["derived"] == {
        "channel_bandwidth_gbps": 32.0,
        "bandwidth_gbps": 1024.0,
        "pim_bandwidth_gbps": 16384.0,
        "channel_bytes": 1 << 30,
        "capacity_bytes": 32 << 30,
        "page_bytes": 1024,
        "row_cycle_cycles": 34 + 14,
        "open_row_read_cycles": 14 + 2,
        "closed_row_read_cycles": 14 + 14 + 2,
        "conflict_read_cycles": 14 + 14 + 14 + 2,
        "refresh_share": pytest.approx(260 / 3900),
    }
    assert {"organization", "controller", "pim", "timing", "constraints", "name", "source"} <= shown.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_an_idle_memory_takes_as_long_for_a_read_as_shown(name: str) -> None:
    """With no row open; the same row again; another row of the bank, after all timings have passed."""
    spec = resolve(memory(name, **{"controller.page_policy": "open", "controller.refresh": "off"}))
    stride = {field: spec.config.organization.burst_bytes << shift for field, shift in address_shifts(spec).items()}
    requests = Requests(np.array([0, stride["co"], stride["ro"]]), np.full(3, READ), np.array([0, 1000, 2000]))
    result = replay_requests(spec, requests, log=True)
    assert result.log is not None
    issued = dict(zip(LOG_FIELDS, result.log.T, strict=True))
    reads = issued["cycle"][issued["command"] == RD]
    figures = derived_figures(spec)
    assert reads[0] + spec.read_latency == figures.closed_row_read_cycles + issued["cycle"][issued["command"] == ACT][0]
    assert reads[1] + spec.read_latency - 1000 == figures.open_row_read_cycles
    assert reads[2] + spec.read_latency - issued["cycle"][issued["command"] == PRE][0] == figures.conflict_read_cycles


def address_shifts(spec: ResolvedSpec) -> dict[str, int]:
    """The lowest bit of each field of a burst's index."""
    return AddressMap.of(spec.config.organization).shift


def test_pseudo_channels_have_a_bus_each() -> None:
    assert derived_figures(resolve(memory("hbm2", **TWO_PSEUDO_CHANNELS))).channel_bandwidth_gbps == 64


def test_refresh_of_banks_in_turn_takes_its_share_of_each_bank() -> None:
    spec = resolve(memory("hbm2", **{"controller.refresh": "per_bank"}))
    assert derived_figures(spec).refresh_share == pytest.approx(160 / (3900 // 16 * 16))
    assert derived_figures(resolve(memory("hbm2", **{"controller.refresh": "off"}))).refresh_share == 0


# --- constraints ---


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("preset", ["physical", "asplos24"])
def test_the_rows_shown_are_those_that_the_engine_obeys(name: str, preset: str) -> None:
    config = load_memory(name, preset)
    spec = resolve(config, preset)
    rows = active_constraints(spec, preset)
    lengths = dict(zip(COMMANDS, spec.command_cycles, strict=True))

    def from_first_cycles(cycles: int, previous: str, following: str, window: int) -> int:
        """A table's distance is between last cycles; windows remember last cycles."""
        return cycles + (1 if window > 1 else lengths[previous]) - lengths[following]

    expanded = [
        (
            previous,
            following,
            from_first_cycles(row.cycles, previous, following, row.window),
            row.cycles_per_dot,
            row.window,
        )
        for row in rows
        for previous in row.previous
        for following in row.next
    ]
    assert expanded == [
        (COMMANDS[row.previous], COMMANDS[row.next], row.base, row.per_dot, row.window) for row in spec.rows
    ]


def test_show_prints_a_row_with_its_expression_and_cycles(capsys: Captured) -> None:
    _, out, _ = run(capsys, "show", "hbm2_pim_dual")
    line = next(line for line in out.splitlines() if "PIM_PRE" in line and "tDOT * dots + tRTP" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "channel", "GEMV", "PIM_PRE", "tDOT * dots + tRTP", "5 + 2 per dot", "", "dual not asplos24",
    ]  # fmt: skip
    assert out.count("asplos24") == out.count("not asplos24")  # its rows do not hold


def test_set_and_preset_change_what_is_shown(capsys: Captured) -> None:
    shown = json.loads(run(capsys, "show", "hbm2", "--set", "timing.tRCD=20", "--preset", "asplos24", "--json")[1])
    assert shown["derived"]["closed_row_read_cycles"] == 20 + 14 + 2
    assert shown["organization"]["ranks"] == 2


def test_the_ideal_memory_has_no_constraints(capsys: Captured, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "show", "ideal", "--json")
    assert (code, json.loads(out)["constraints"]) == (0, [])
    code, _, err = run(capsys, "show", "ideal", "--matrix", tmp_path / "m.svg")
    assert (code, err.count("\n")) == (2, 1)
    assert "model 'ideal'; allowed: model 'command'" in err


# --- the matrix ---


def matrices(spec: ResolvedSpec, dots: int = 6) -> dict[str, pd.DataFrame]:
    return {relation.title: minimum_distances(spec, relation, dots) for relation in relations(spec)}


def test_distances_of_hbm2_in_each_relation() -> None:
    tables = matrices(resolve(memory("hbm2", **{"organization.ranks": 2})))
    assert list(tables) == ["same bank", "same bank group, other bank", "same rank, other bank group", "other rank"]
    assert [table.loc["ACT", "ACT"] for table in tables.values()][:3] == [48, 6, 4]  # tRC, tRRD_L, tRRD_S
    assert [table.loc["WR", "RD"] for table in tables.values()] == [14, 14, 12, 0]
    assert [table.loc["RD", "RD"] for table in tables.values()] == [2, 2, 2, 4]
    assert [np.isnan(table.loc["ACT", "RD"]) for table in tables.values()] == [False, True, True, True]
    assert tables["same bank"].loc["REF", "ACT"] == 260
    assert np.isnan(tables["other rank"].loc["ACT", "ACT"])


@pytest.mark.parametrize(
    ("command", "panels"),
    [
        ("RD", [True, True, True, True]),
        ("PIM_ACT", [True, False, True, True]),
        ("REF", [True, False, False, True]),
        ("GEMV", [True, False, False, False]),
    ],
)
def test_a_command_stands_only_where_the_relation_can_be_told(
    dual: ResolvedSpec, command: str, panels: list[bool]
) -> None:
    """A bank group has no other bank than its own, and a rank no other bank group."""
    assert [command in table.index for table in matrices(dual).values()] == panels


def test_a_longer_gemv_keeps_its_row_longer(dual: ResolvedSpec) -> None:
    short, long = (matrices(dual, dots)["same bank"].loc["GEMV", "PIM_PRE"] for dots in (6, 32))
    assert (short, long) == (2 * 6 + 5, 2 * 32 + 5)


def test_another_pseudo_channel_shares_only_what_the_channel_constrains() -> None:
    tables = matrices(resolve(memory("hbm2_pim_dual", **TWO_PSEUDO_CHANNELS)))
    shared = tables["other pseudo-channel"]
    assert shared.loc["GWRITE", "PIM_ACT"] == 96
    assert shared.loc[["ACT", "RD", "WR"], ["ACT", "RD", "WR"]].isna().all(axis=None)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_matrix_of_every_memory_names_its_commands_and_cycles(capsys: Captured, tmp_path: Path, name: str) -> None:
    file = tmp_path / "matrix.svg"
    code, _, _ = run(capsys, "show", name, "--json", "--matrix", file)
    assert code == 0
    picture = file.read_text()
    spec = resolve(load_memory(name))
    for command in COMMANDS:
        assert (f">{command}<" in picture) == (command in declared_commands(spec)), command
    for cycles in matrices(spec, max(1, spec.config.pim.pipeline_dots))["same bank"].stack().dropna():
        assert f">{cycles:.0f}<" in picture


def test_the_matrix_is_a_pdf_png_or_svg(capsys: Captured, tmp_path: Path) -> None:
    for suffix, begin in ((".pdf", b"%PDF"), (".png", b"\x89PNG"), (".svg", b"<?xml")):
        files = [tmp_path / f"{which}{suffix}" for which in "ab"]
        for file in files:
            assert run(capsys, "show", "hbm2", "--matrix", file)[0] == 0
        assert files[0].read_bytes().startswith(begin)
        assert files[0].read_bytes() == files[1].read_bytes()
    code, _, err = run(capsys, "show", "hbm2", "--matrix", tmp_path / "m.gif")
    assert (code, err.count("\n")) == (2, 1)
    assert "allowed: .pdf, .png, .svg" in err
    assert run(capsys, "show", "hbm2", "--matrix", tmp_path / "no" / "m.svg")[0] == 2


# --- the log as a table ---


@pytest.mark.parametrize("name", ["hbm2", "hbm2_pim_dual"])
def test_a_command_has_the_place_that_the_address_says(name: str) -> None:
    """Field by field from the address, for requests all over two pseudo-channels of two ranks."""
    config = memory(name, **TWO_PSEUDO_CHANNELS)
    spec, organization = resolve(config), config.organization
    address = np.random.default_rng(1).integers(0, organization.capacity_bytes // 64, 200) * 64
    zero = np.zeros(200, dtype=np.int64)
    table = command_table(spec, replay_requests(spec, Requests(address, zero, zero), log=True).log)  # type: ignore[arg-type]
    reads = table[table["command"] == "RD"]
    rest, expected = address // 64, {}
    sizes = {
        "column": organization.row_bytes // 64, "bank": 4, "bank_group": 4, "pseudo_channel": 2, "rank": 2, "row": organization.rows,
    }  # fmt: skip
    for field, size in sizes.items():
        rest, expected[field] = np.divmod(rest, size)
    wanted = pd.DataFrame(expected)
    order = list(wanted.columns)
    found = reads[order].astype(np.int64).sort_values(order).to_numpy()
    assert (found == wanted.sort_values(order).to_numpy()).all()


def test_columns_are_named_in_order_and_empty_where_a_command_addresses_no_such_level(dual: ResolvedSpec) -> None:
    plain = ["cycle", "command", "channel", "rank", "bank_group", "bank", "row", "column"]
    log = log_of((0, REF, 16, -1), (9, PIM_ACT, 20, 7), (10, HEADER, 0, 7), (12, GEMV, 0, 7), (40, PIM_PRE, 21, 7))
    log[3, LOG_FIELDS.index("tag")] = 8
    table = command_table(dual, log)
    assert list(table.columns) == [*plain, "dots"]
    places = table[["rank", "bank_group", "bank"]]
    assert [row.dropna().astype(int).tolist() for _, row in places.iterrows()] == [[1], [1, 1], [], [], [1, 1, 1]]
    assert table["row"].tolist()[1:] == [7, 7, 7, 7]
    assert table["dots"].dropna().tolist() == [8]
    assert list(command_table(resolve(memory("hbm2")), log[:1]).columns) == plain
    pseudo = command_table(resolve(memory("hbm2", **TWO_PSEUDO_CHANNELS)), log[:1])
    assert list(pseudo.columns) == [*plain[:3], "pseudo_channel", *plain[3:]]


def test_a_table_read_again_is_the_log(dual: ResolvedSpec, work: Replay, tmp_path: Path) -> None:
    assert work.log is not None
    file = tmp_path / "commands.csv"
    command_table(dual, work.log).to_csv(file, index=False)
    again = read_commands(dual, file)
    tags = LOG_FIELDS.index("tag")
    items = np.isin(work.log[:, LOG_FIELDS.index("command")], (RD, COMMANDS.index("WR")))
    assert (np.delete(again, tags, axis=1) == np.delete(work.log, tags, axis=1)).all()
    assert (again[~items, tags] == work.log[~items, tags]).all()


def test_replay_writes_the_table_whole_or_not_at_all(capsys: Captured, tmp_path: Path) -> None:
    trace = write(tmp_path / "t", "".join(f"0x{64 * i:x} {'WRITE' if i % 4 == 3 else 'READ'} 0\n" for i in range(64)))
    file = tmp_path / "commands.csv"
    code, out, _ = run(capsys, "replay", "hbm2", trace, "--channels", "1", "--json", "--commands", file)
    table = pd.read_csv(file)
    assert code == 0
    assert list(table.columns) == ["cycle", "command", "channel", "rank", "bank_group", "bank", "row", "column"]
    assert table["command"].value_counts().to_dict() == {k: n for k, n in json.loads(out)["commands"].items() if n}
    assert table.loc[table["command"] == "RD", "column"].head(4).tolist() == [0, 1, 2, 4]
    assert table["cycle"].is_monotonic_increasing
    code, _, err = run(capsys, "replay", "hbm2", trace, "--commands", tmp_path / "no" / "c.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["commands.csv", "t"]


def test_set_changes_the_memory_that_is_replayed(capsys: Captured, tmp_path: Path) -> None:
    trace = write(tmp_path / "t", "0x0 READ 0\n0x40 READ 500\n")
    precharges = {
        policy: json.loads(
            run(capsys, "replay", "hbm2", trace, "--set", f"controller.page_policy={policy}", "--json")[1]
        )["commands"]["PRE"]
        for policy in ("open", "closed")
    }
    assert precharges["open"] == 0
    assert precharges["closed"] >= 1
    code, _, err = run(capsys, "replay", "hbm2", trace, "--set", "timing.tRCDD=3")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean tRCD?" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cycle,command,channel,rank,bank_group,row\n0,ACT,0,0,0,3\n", "no column 'bank'; allowed: bank_group"),
        ("cycle,command,channel,rank,bank_group,bank\n0,ACTIVATE,0,0,0,3\n", "c.csv:2: unknown command 'ACTIVATE'"),
        ("cycle,command,channel,rank,bank_group,bank\n0,ACT,0,0,0,3\n5,ACT,0,0,9,3\n", "c.csv:3: bank_group=9; allowed: 0 to 3"),
        ("cycle,command,channel,rank,bank_group,bank\n-4,ACT,0,0,0,3\n", "cycle=-4; allowed: non-negative integers"),
        ("cycle,command,channel,rank,bank_group,bank\n0,ACT,1,0,0,0\n", "channel=1; allowed: 0 to 0"),
        ("", "cannot be read as a table of commands"),
    ],
)  # fmt: skip
def test_a_bad_table_of_commands_is_one_line(dual: ResolvedSpec, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_commands(dual, write(tmp_path / "c.csv", text))
    assert "\n" not in str(error.value)


# --- the timeline ---


def test_the_two_row_buffers_of_a_bank_are_open_at_once(dual: ResolvedSpec) -> None:
    log = log_of((0, ACT, 5, 7), (10, PIM_ACT, 4, 9), (50, PRE, 5, 7), (90, PIM_PRE, 5, 9), (91, PIM_PRE, 6, 9))
    openings = row_openings(dual, log)
    assert openings[:3] == [
        Opening(MEMORY, 5, 7, 0, 50, False),
        Opening(PIM, 5, 9, 10, 90, True),
        Opening(PIM, 6, 9, 10, 91, True),
    ]
    assert [(left.bank, left.end) for left in openings[3:]] == [(4, None), (7, None)]


def test_with_one_row_buffer_a_precharge_closes_the_row_of_pim() -> None:
    spec = resolve(memory("hbm2_pim_blocked"))
    openings = row_openings(spec, log_of((10, PIM_ACT, 4, 9), (90, PRE, 5, 9)))
    assert openings[0] == Opening(MEMORY, 5, 9, 10, 90, True)


def test_precharge_all_closes_the_rows_of_its_rank(dual: ResolvedSpec) -> None:
    openings = row_openings(dual, log_of((0, ACT, 3, 1), (4, ACT, 17, 2), (60, PREA, 0, -1)))
    assert openings == [Opening(MEMORY, 3, 1, 0, 60, False), Opening(MEMORY, 17, 2, 4, None, False)]


def test_a_refresh_of_banks_goes_to_banks_that_lie_apart() -> None:
    spec = resolve(memory("hbm2", **{"organization.ranks": 2, "organization.banks_per_refpb": 2}))
    assert list(addressed_banks(spec.config, "REFPB", 18)) == [18, 26]
    assert list(addressed_banks(spec.config, "REF", 16)) == list(range(16, 32))


def texts(figure) -> list[str]:  # type: ignore[no-untyped-def]
    (panel,) = figure.axes
    return [tick.get_text() for tick in panel.get_yticklabels()]


def test_banks_with_an_open_row_have_lanes_below_the_buses(dual: ResolvedSpec, work: Replay) -> None:
    assert work.log is not None
    lanes = texts(draw_command_timeline(dual, work.log))
    assert lanes[:3] == ["row commands", "column commands", "data"]
    assert len(lanes) == 3 + 32  # the tile opens a row in every bank
    assert lanes[3:5] == ["0.0.0", "0.0.1"]
    assert texts(draw_command_timeline(dual, work.log, banks=[17, 2]))[3:] == ["0.0.2", "1.0.1"]
    closed_before = log_of((0, ACT, 6, 1), (40, PRE, 6, 1), (50, ACT, 9, 1))
    assert texts(draw_command_timeline(dual, closed_before, begin=45))[3:] == ["0.2.1"]
    plain = resolve(memory("hbm2", **{"controller.separate_command_buses": False}))
    assert texts(draw_command_timeline(plain, log_of((5, ACT, 6, 1)))) == ["commands", "data", "1.2"]


def test_the_window_begins_with_the_first_command(dual: ResolvedSpec) -> None:
    log = log_of((700, ACT, 5, 7), (800, PRE, 5, 7))
    assert draw_command_timeline(dual, log).axes[0].get_xlim() == (700, 1300)
    assert draw_command_timeline(dual, log, begin=750, cycles=100).axes[0].get_xlim() == (750, 850)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"begin": 900}, "no command in cycles 900 to 1500; the commands lie in 700 to 800"),
        ({"channel": 3}, "no command on channel 3; channels with commands: 0"),
        ({"banks": [5, 32]}, "no bank 32 in a channel; allowed: 0 to 31"),
    ],
)
def test_a_view_without_anything_to_see_is_refused(
    dual: ResolvedSpec, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        draw_command_timeline(dual, log_of((700, ACT, 5, 7), (800, PRE, 5, 7)), **arguments)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A trace and a PIM program of other rows."""
    return {
        "TRACE": write(tmp_path / "trace", "".join(f"0x{(5000 << 15) + 64 * i:x} READ 0\n" for i in range(64))),
        "PROGRAM": write(tmp_path / "program", "GWRITE 0\nTILE 1000 2 8\n"),
        "CSV": tmp_path / "commands.csv",
        "OUT": tmp_path / "out.svg",
        "AGAIN": tmp_path / "again.svg",
        "GIF": tmp_path / "out.gif",
    }


def test_the_picture_of_a_replay_and_of_its_table_of_commands_are_the_same(
    capsys: Captured, files: dict[str, Path]
) -> None:
    memory_ = ("hbm2_pim_dual", "--channels", "1")
    replayed = (files["TRACE"], "--pim", files["PROGRAM"])
    code, out, _ = run(capsys, "timeline", *memory_, *replayed, "-o", files["OUT"])
    assert (code, out) == (0, f"{files['OUT']}\n")
    assert run(capsys, "replay", *memory_, *replayed, "--commands", files["CSV"])[0] == 0
    assert run(capsys, "timeline", *memory_, "--commands", files["CSV"], "-o", files["AGAIN"])[0] == 0
    picture = files["OUT"].read_text()
    assert picture == files["AGAIN"].read_text()
    for text in ("GEMV: dot-products, result", "PIM_ACT", "GWRITE, HEADER", ">1000<", ">5000<"):
        assert text in picture


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "OUT"], "give a TRACE, --pim PROGRAM, or both; or else --commands"),
        (["TRACE", "--commands", "CSV", "-o", "OUT"], "or else --commands"),
        (["TRACE", "-o", "GIF"], "allowed: .pdf, .png, .svg"),
        (["TRACE", "-o", "OUT", "--cycles", "0"], "--cycles 0"),
        (["TRACE", "-o", "OUT", "--banks", "0..3"], "--banks '0..3'"),
        (["TRACE", "-o", "OUT", "--from", "99999"], "no command in cycles 99999"),
        (["--commands", "CSV", "-o", "OUT"], "cannot be read as a table of commands"),
        (["TRACE", "-o", "no/such/folder.svg"], "cannot be written"),
    ],
)
def test_a_bad_call_of_timeline_is_one_line_and_exit_code_2(
    capsys: Captured, files: dict[str, Path], arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, "timeline", "hbm2", *(files.get(argument, argument) for argument in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


# --- bad tables ---


@pytest.mark.parametrize("command", ["show", "replay"])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("constraints: [[bank, ACT, RDA, tRCD]]", "unknown command 'RDA'; allowed: ACT, GEMV"),
        ("timing: {tRCD: -1}", "timing.tRCD=-1: must be greater than or equal to 0"),
        ("timing: {tRCD: 13.5}", "timing.tRCD=13.5: must be a valid integer"),
        ("timing: {tRCD: soon}", "timing.tRCD='soon': unknown timing 'soon'"),
        ("timing: {tRAS: tRC - tRP, tRC: tRAS + tRP}", "goes in a circle: tRAS -> tRC -> tRAS"),
        ("timing: {tRC: tRC + 1}", "goes in a circle: tRC -> tRC"),
        ("constraints: [[bank, ACT, RD, tRDC]]", "unknown timing 'tRDC'"),
        ("constraints: [[bank, ACT, RD, tRCD ** 2]]", "'tRCD ** 2' is not an expression"),
        ("constraints: [[bank, ACT, RD, tRP - tRAS]]", "must be non-negative"),
        ("constraints: [[bnak, ACT, RD, tRCD]]", "did you mean bank?"),
        ("constraints: [[bank, ACT, RD]]", "must be [scope, previous, next, latency]"),
        ("organization: {banks_per_group: 3}", "organization.banks_per_group=3 must be a power of two"),
        ("organization: {rows: 1000}", "organization.rows=1000 must be a power of two"),
        ("organization: {address_mapping: rorabgbacoco}", "must name each of ro, ra, bg, ba, ch, co once"),
        ("controller: {scheduling: frfcfs}", "did you mean fr_fcfs?"),
        ("timing: {tRCD: 1", "line 3: did not find expected ',' or '}'"),
    ],
)  # fmt: skip
def test_a_bad_memory_is_one_line_and_exit_code_2(
    capsys: Captured, tmp_path: Path, command: str, table: str, message: str
) -> None:
    bad = write(tmp_path / "bad.yaml", f"base: hbm2\nname: bad\n{table}\n")
    trace = [write(tmp_path / "t", "0x0 READ 0\n")] if command == "replay" else []
    code, out, err = run(capsys, command, bad, *trace)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x0 READ 0\n0x40 REA", "t:2: '0x40 REA' is not a request"),
        ("0x0 READ 0\n0x40 READ", "t:2: '0x40 READ' is not a request"),
        ("0x0 READ 0\n0x40000000 READ 0\n", "t:2: address 0x40000000 is beyond the memory; allowed: below 0x40000000"),
    ],
)
@pytest.mark.parametrize("command", ["replay", "timeline"])
def test_a_bad_trace_is_one_line_and_exit_code_2(
    capsys: Captured, tmp_path: Path, command: str, text: str, message: str
) -> None:
    output = ["-o", tmp_path / "o.svg"] if command == "timeline" else []
    code, out, err = run(capsys, command, "hbm2", write(tmp_path / "t", text), "--channels", "1", *output)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
