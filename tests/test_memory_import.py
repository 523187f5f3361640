"""``memory import``: DRAMsim3 configurations as memory tables."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_cases import Captured, run

from neupims_sim.config import MemoryConfig, check_file, load_memory
from neupims_sim.errors import InputError
from neupims_sim.memory import READ, Requests, ResolvedSpec, replay_requests, resolve
from neupims_sim.memory.dramsim3 import import_dramsim3
from neupims_sim.memory.spec import COMMANDS, REFPB

Bursts = Callable[[np.ndarray], np.ndarray]

HBM2 = """
; 8 Gb HBM2, the figures of DRAMsim3's HBM2_8Gb_x128
[dram_structure]
protocol = HBM
bankgroups = 4
banks_per_group = 4
rows = 32768
columns = 64
device_width = 128
BL = 4

[timing]
tCK = 1
CL = 14
CWL = 4
tRCDRD = 14
tRCDWR = 14
tRP = 14
tRAS = 34
tRFC = 260
tREFI = 3900
tRRD_S = 4
tRRD_L = 6
tWTR_S = 6
tWTR_L = 8
tFAW = 30
tWR = 16
tCCD_S = 1
tCCD_L = 2

[system]
channel_size = 1024
channels = 32
bus_width = 128
address_mapping = rorabgbachco
queue_structure = PER_BANK
row_buf_policy = OPEN_PAGE
cmd_queue_size = 8
trans_queue_size = 32
"""

DDR4 = """
[dram_structure]
protocol = DDR4
bankgroups = 4
banks_per_group = 4
rows = 65536
columns = 1024
device_width = 8
BL = 8
[timing]
tCK = 0.625
CL = 22
CWL = 16
tRCD = 22
tRP = 22
tRAS = 52
tRFC = 560
tREFI = 12480
tRRD_S = 4
tRRD_L = 8
tWTR_S = 4
tWTR_L = 12
tFAW = 34
tWR = 24
tCCD_S = 4
tCCD_L = 8
tRTP = 12
tRTRS = 1
[system]
channel_size = 16384
bus_width = 64
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def changed(text: str, *settings: str) -> str:
    """The configuration with keys set anew (``tRP = 15``), added to a section (``[timing] AL = 3``), or taken out (``tRP``)."""
    for setting in settings:
        section, key, value = re.fullmatch(r"(?:\[(\w+)\] )?(\w+)(?: = (.*))?", setting).groups()  # type: ignore[union-attr]
        if section:
            text = text.replace(f"[{section}]\n", f"[{section}]\n{key} = {value}\n")
        else:
            assert re.search(rf"(?m)^{key} = .*$\n", text), key
            text = re.sub(rf"(?m)^{key} = .*$\n", "" if value is None else f"{key} = {value}\n", text)
    return text


@pytest.fixture
def imported(tmp_path: Path) -> MemoryConfig:
    """The HBM2 configuration as a memory."""
    return table(tmp_path, HBM2)


def table(folder: Path, text: str, **overrides: object) -> MemoryConfig:
    made = import_dramsim3(write(folder / "part.ini", text))
    return load_memory(write(folder / "part.yaml", made.text), overrides=overrides)


def notes(folder: Path, text: str) -> str:
    return "\n".join(import_dramsim3(write(folder / "part.ini", text)).notes)


# --- the same memory ---


def test_the_same_values_make_the_same_constraints_as_the_shipped_table(imported: MemoryConfig) -> None:
    """All but those of single-bank refresh, of which the file says nothing."""
    shipped = load_memory("hbm2")
    assert set(resolve(imported).rows) == {row for row in resolve(shipped).rows if REFPB not in row[:2]}
    assert imported.organization == shipped.organization


@pytest.mark.parametrize(
    ("reads", "bursts"),
    [
        (459_565, lambda index: index),
        (19_360, lambda index: index * 32 * 16),
        (122_810, lambda index: np.random.default_rng(0).integers(0, 2**30 // 64, len(index))),
    ],
    ids=["seq_rd", "conf_rd", "rand_rd"],
)
def test_the_same_values_take_the_same_cycles_as_the_shipped_table(
    imported: MemoryConfig, reads: int, bursts: Bursts
) -> None:
    """The reads of ``golden/dram_channel_cycles.csv``."""
    zero = np.zeros(reads, dtype=np.int64)
    requests = Requests(bursts(np.arange(reads)) * 64, zero + READ, zero)
    results = []
    for config in (imported, load_memory("hbm2")):
        one_channel = config.model_copy(update={"organization": config.organization.model_copy(update={"channels": 1})})
        result = replay_requests(resolve(one_channel), requests)
        results.append((result.cycles, result.commands, result.mean_read_latency_cycles))
    assert results[0] == results[1]


# --- what keys mean ---


def test_a_rank_fills_the_bus_with_devices_and_a_channel_its_size_with_ranks(tmp_path: Path) -> None:
    organization = table(tmp_path, DDR4).organization
    assert organization.row_bytes == 8 * 1024  # 8 devices of 1024 columns of 8 bits
    assert organization.ranks == 2  # of 8 GiB
    assert organization.channel_bytes == 16384 << 20
    assert (organization.burst_bytes, organization.burst_cycles, organization.clock_ghz) == (64, 4, 1.6)


def test_a_channel_smaller_than_a_rank_gets_one_rank_and_a_note(tmp_path: Path) -> None:
    text = changed(DDR4, "channel_size = 4096")
    assert table(tmp_path, text).organization.ranks == 1
    assert "channel_size = 4096 MB is not what 1 rank of 8192 MB hold" in notes(tmp_path, text)


def test_an_additive_latency_moves_from_the_activation_to_the_data(tmp_path: Path) -> None:
    """RL = AL + CL, a read may issue AL earlier, and its row closes AL later."""
    config = table(tmp_path, changed(DDR4, "[timing] AL = 3"))
    spec = resolve(config)
    assert (config.timing["CL"], config.timing["CWL"]) == (25, 19)
    assert least(spec, "ACT", "RD") == 22 - 3
    assert least(spec, "RD", "PRE") == 3 + 12


def test_one_bank_group_has_the_short_timings(tmp_path: Path) -> None:
    text = changed(DDR4, "[dram_structure] bankgroup_enable = false")
    config = table(tmp_path, text)
    assert (config.organization.bank_groups, config.organization.banks_per_group) == (1, 16)
    assert not {"tRRD_L", "tCCD_L", "tWTR_L"} & config.timing.keys()
    assert {row.scope for row in config.constraints} == {"bank", "rank", "other_ranks"}
    assert "without effect here: tRRD_L" in notes(tmp_path, text)


@pytest.mark.parametrize(("protocol", "burst_cycles"), [("GDDR5", 4), ("GDDR5X", 2), ("GDDR6", 1)])
def test_gddr_has_wide_columns_two_row_to_column_delays_and_a_window_of_32(
    tmp_path: Path, protocol: str, burst_cycles: int
) -> None:
    text = changed(
        DDR4, f"protocol = {protocol}", "columns = 128", "BL = 16", "rows = 16384", "tRCD", "[timing] tRCDRD = 24",
        "[timing] tRCDWR = 20", "[timing] t32AW = 420", "[timing] tPPD = 2",
    )  # fmt: skip
    config = table(tmp_path, text)
    spec = resolve(config)
    assert config.organization.row_bytes == 8 * 128 * 16  # a column is a burst of 16 transfers
    assert spec.burst_cycles == burst_cycles
    assert (least(spec, "ACT", "RD"), least(spec, "ACT", "WR"), least(spec, "PRE", "PRE")) == (24, 20, 2)
    assert {(row.window, row.base) for row in spec.rows if row.window > 1} == {(4, 34), (32, 420)}


def least(spec: ResolvedSpec, previous: str, following: str) -> int:
    """Cycles between two commands to one bank."""
    pair = COMMANDS.index(previous), COMMANDS.index(following)
    return max(row.base for row in spec.rows if (row.previous, row.next, row.window) == (*pair, 1))


def test_refresh_of_single_banks_has_the_interval_of_the_channel(tmp_path: Path) -> None:
    """tREFIb counts for the banks of all ranks in turn, tREFIpb for those of one rank."""
    text = changed(
        DDR4, "[system] refresh_policy = BANK_LEVEL_STAGGERED", "[timing] tREFIb = 390", "[timing] tRFCb = 200"
    )
    config = table(tmp_path, text)
    assert config.controller.refresh == "per_bank"
    assert resolve(config).refresh_interval == 2 * 390
    assert least(resolve(config), "REFPB", "ACT") == 200
    assert "in DRAMsim3 the other banks wait" in notes(tmp_path, text)


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("[system] queue_structure = PER_RANK", "scheduling", "fr_fcfs"),
        ("[system] queue_structure = PER_BANK", "scheduling", "bank_round_robin"),
        ("[system] row_buf_policy = CLOSE_PAGE", "page_policy", "closed"),
        ("[system] row_buf_policy = OPEN_PAGE", "page_policy", "open"),
        ("[system] aggressive_precharging_enabled = true", "page_policy", "closed"),
        ("[system] cmd_queue_size = 24", "bank_queue_depth", 24),
        ("[system] trans_queue_size = 48", "transaction_queue_depth", 48),
        ("[system] trans_queue_size = 48", "write_drain_high", 48),
        ("[dram_structure] hbm_dual_cmd = true", "separate_command_buses", False),
    ],
)
def test_what_a_controller_key_sets(tmp_path: Path, setting: str, field: str, value: object) -> None:
    assert getattr(table(tmp_path, changed(DDR4, setting)).controller, field) == value


def test_only_hbm_issues_two_commands_at_once(tmp_path: Path) -> None:
    for text, dual in ((HBM2, True), (changed(HBM2, "[dram_structure] hbm_dual_cmd = false"), False), (DDR4, False)):
        assert table(tmp_path, text).controller.separate_command_buses is dual


def test_currents_make_the_power_section_if_they_are_complete(tmp_path: Path) -> None:
    currents = "\n[power]\nVDD = 1.2\nIDD0 = 57.5\nIDD2N = 37\nIDD3N = 52\nIDD4R = 168\nIDD4W = 150\n"
    power = table(tmp_path, DDR4 + currents + "IDD5AB = 250\n").power
    assert power is not None
    assert (power.vdd_v, power.idd0_ma, power.idd5ab_ma, power.devices_per_rank) == (1.2, 57.5, 250, 8)
    assert table(tmp_path, DDR4 + currents).power is None
    assert "no energy will be reported" in notes(tmp_path, DDR4 + currents)


# --- nothing is dropped silently ---


def test_every_key_is_used_or_told(tmp_path: Path) -> None:
    extra = {
        "num_dies": "dram_structure",
        "tXS": "timing",
        "tRTP_L": "timing",
        "tRFCb": "timing",
        "epoch_period": "other",
    }
    text = DDR4 + "[other]\n"
    for key, section in extra.items():
        text = changed(text, f"[{section}] {key} = 7")
    made = import_dramsim3(write(tmp_path / "part.ini", text))
    told = "\n".join(made.notes)
    for key in extra:
        assert key in told
        assert re.search(rf"(?m)^#.*\b{key}\b", made.text)
    keys = re.findall(r"(?m)^(\w+) = ", text)
    used = set(table(tmp_path, text).timing) | set(re.findall(r"\w+", told))
    organization = {"protocol", "bankgroups", "banks_per_group", "rows", "columns", "device_width", "BL", "tCK"}
    assert set(keys) <= used | organization | {"channel_size", "bus_width"}


def test_a_key_that_dramsim3_does_not_know_is_told_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    text = changed(DDR4, "tREFI", "[timing] REFI = 6240")
    told = notes(tmp_path, text)
    line = text.splitlines().index("REFI = 6240") + 1
    assert f"REFI = 6240 (line {line}; is tREFI meant?)" in told
    assert "tREFI = 7800" in told
    assert table(tmp_path, text).timing["tREFI"] == 7800


def test_names_are_read_without_case_and_comments_are_left_out(tmp_path: Path) -> None:
    text = DDR4.replace("tRP = 22", "TRP=22 ; ns").replace("[timing]", "# all\n [Timing]").replace("CL = 22", "CL : 22")
    assert table(tmp_path, text).timing["tRP"] == 22


# --- bad input ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(DDR4, "tRAS"), r"part.ini:10: \[timing\] has no tRAS"),
        (changed(DDR4, "tRCD", "[timing] tRCDD = 3"), r"has no tRCD; is tRCDD in line 11 meant\?"),
        (changed(DDR4, "protocol"), r"\[dram_structure\] has no protocol"),
        (DDR4.split("[timing]")[0] + "[system]\nchannels = 1\n", r"section \[timing\] is missing"),
        (changed(DDR4, "protocol = DDR9"), r"part.ini:3: .*protocol = DDR9: allowed: DDR3, DDR4.*did you mean DDR"),
        (changed(DDR4, "protocol = HMC"), "protocol = HMC: allowed: DDR3"),
        (changed(DDR4, "columns = 1000"), r"part.ini:7: .*columns = 1000: allowed: a power of two"),
        (changed(DDR4, "BL = 0"), r"BL = 0: allowed: an integer of at least 1"),
        (changed(DDR4, "tRP = 13.75"), r"part.ini:15: \[timing\] tRP = 13.75: allowed: an integer of at least 0"),
        (changed(DDR4, "tRP = -1"), "tRP = -1: allowed: an integer"),
        (changed(DDR4, "tRP = fast"), "tRP = fast: allowed: an integer"),
        (changed(DDR4, "tCK = 0"), "tCK = 0: allowed: a time in ns, greater than 0"),
        (changed(DDR4, "tCK = 1ns"), "tCK = 1ns: allowed: a non-negative number"),
        (changed(DDR4, "channel_size = 24576"), "channel_size = 24576: allowed: a power of two times the 8192 MB of a rank"),
        (changed(DDR4, "bus_width = 4"), "device_width = 8: allowed: at most bus_width, 4 bits"),
        (changed(DDR4, "[system] address_mapping = rochrabaco"), "address_mapping = rochrabaco: allowed: ro, ra, bg"),
        (changed(DDR4, "[system] queue_structure = PER_BNAK"), r"PER_BNAK: allowed: .*did you mean PER_BANK\?"),
        (changed(DDR4, "[system] refresh_policy = NEVER"), "refresh_policy = NEVER: allowed: BANK_LEVEL_STAGGERED"),
        (changed(DDR4, "[system] unified_queue = maybe"), "unified_queue = maybe: allowed: true, yes"),
        (DDR4 + "tRFC 560\n", r"part.ini:32: 'tRFC 560' is not a line of an .ini file"),
        (changed(DDR4, "tRFC = "), r"part.ini:17: \[timing\] tRFC has no value"),
        ("rows = 4\n" + DDR4, "part.ini:1: 'rows = 4' is not a line"),
        (DDR4 + "bus_width = 64\n", "part.ini:32: 'bus_width = 64': bus_width is stated twice, first in line 31"),
        (changed(DDR4, "CWL = 60"), "does not make a memory: .*must be non-negative"),
        ("", r"section \[dram_structure\] is missing, with protocol"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        import_dramsim3(write(tmp_path / "part.ini", text))
    assert "\n" not in str(error.value)
    assert "part.ini" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "value", "note"),
    [
        (["tCK = 0.625 (1/1.6)"], "  clock_ghz: 1.6 ", "tCK = 0.625 (1/1.6) is read as 0.625"),
        (["tCK = 6.25e-1"], "  clock_ghz: 1.6 ", ""),
        (["tRP = 22 cycles"], "  tRP: 22\n", "tRP = 22 cycles is read as 22"),
        (["tRP = 0x16"], "  tRP: 22\n", ""),
        (["tRTP = "], "  tRTP: 5\n", "tRTP = 5"),  # DRAMsim3's default
        (["[system] trans_queue_size = 4"], "  write_drain_low: 4 ", ""),  # 8 in DRAMsim3's code, which 4 never reach
    ],
)
def test_values_are_read_as_dramsim3_reads_them(tmp_path: Path, settings: list[str], value: str, note: str) -> None:
    table = import_dramsim3(write(tmp_path / "part.ini", changed(DDR4, *settings)))
    assert value in table.text
    assert note in " ".join(table.notes)


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "part.ini"
    path.write_bytes(b"\xef\xbb\xbf" + DDR4.lstrip().encode())
    assert "tRP: 22" in import_dramsim3(path).text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(DDR4.encode(), mtime=0), "is compressed"),
        (DDR4.encode() + b"a = \xff\n", "part.ini:32: .*not UTF-8"),
        (b"x" * (2 << 20), "longer than 1,048,576 bytes"),
        (DDR4.encode() + b"a = " + b"x" * 500_000 + b"\nb\n", "part.ini:33: 'b' is not a line"),
    ],
)
def test_files_that_are_no_text_or_too_long_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "part.ini"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        import_dramsim3(path)
    assert len(str(error.value)) < 500


def test_a_refresh_that_leaves_no_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not make a memory: .*refresh leaves no time"):
        import_dramsim3(write(tmp_path / "part.ini", changed(DDR4, "tREFI = 560")))


def test_currents_below_standby_give_no_energy(tmp_path: Path) -> None:
    power = "[power]\nVDD = 1.2\nIDD0 = 50\nIDD2N = 30\nIDD3N = 45\nIDD4R = 40\nIDD4W = 150\nIDD5AB = 250\n"
    table = import_dramsim3(write(tmp_path / "part.ini", DDR4 + power))
    assert "power:" not in table.text
    assert "IDD4R = 40 below 45" in " ".join(table.notes)


# --- the command line ---


def test_import_writes_a_table_that_passes_the_check_and_tells_what_it_left_out(
    capsys: Captured, tmp_path: Path
) -> None:
    source = write(tmp_path / "mine.ini", changed(HBM2, "[timing] tRTP_L = 6"))
    target = tmp_path / "mine.yaml"
    code, out, err = run(capsys, "memory", "import", source, "-o", target)
    assert (code, out) == (0, f"{target}\n")
    assert "tRTP_L = 6" in err
    assert all(line.startswith("note: ") for line in err.splitlines())
    check_file(target)
    assert run(capsys, "config", "check", target)[0] == 0
    assert run(capsys, "memory", "show", target)[0] == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("none.ini", "a.yaml", "none.ini: cannot be read: No such file"),
        ("mine.ini", "a.txt", "must end in .yaml"),
        ("mine.ini", "no/such/folder/a.yaml", "cannot be written"),
    ],
)
def test_bad_paths_are_one_line_and_exit_code_2(
    capsys: Captured, tmp_path: Path, source: str, target: str, message: str
) -> None:
    write(tmp_path / "mine.ini", HBM2)
    code, out, err = run(capsys, "memory", "import", tmp_path / source, "-o", tmp_path / target)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
