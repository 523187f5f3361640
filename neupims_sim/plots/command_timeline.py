"""The commands of one channel in time: its buses, and the rows open in the memory and the PIM row buffer of every bank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from neupims_sim.errors import InputError
from neupims_sim.memory import COMMANDS, LOG_FIELDS, ResolvedSpec
from neupims_sim.memory.command_log import place_of
from neupims_sim.memory.inspection import dot_product_cycles, refresh_cycles
from neupims_sim.memory.legality import addressed_banks
from neupims_sim.memory.spec import ACT, GEMV, GWRITE, PIM_ACT, PIM_PRE, PRE, PREA, RD, REF, REFPB, WR
from neupims_sim.plots.style import FAINT, INK, STYLE

Int64Array = npt.NDArray[np.int64]

MEMORY, PIM = 0, 1
"""The row buffers of a bank."""

# Blue is memory, orange is PIM. Light: a row is open, in two shades so that one row after another shows; dark: at work.
OPEN = {False: ("#C9E0F0", "#A6CBE5"), True: ("#FCE7BC", "#F7D488")}
WORK = {
    "ACT": INK, "PRE": "#7A7A7A", "PREA": "#7A7A7A", "RD": "#0B5394", "WR": "#D55E00", "REF": "#B8B8B8", "REFPB": "#B8B8B8",
    "GWRITE": "#009E73", "HEADER": "#009E73", "PIM_ACT": "#8C2D6B", "PIM_PRE": "#CC79A7", "GEMV": "#A65300",
}  # fmt: skip

WIDTH = 7.2
"""Inches: two columns of a paper."""
LANE = 0.078
"""Inches of a lane."""
STROKE = 0.0017
"""Share of the window that a command is wide at least."""
GAP = 0.35
"""Lanes left free behind a bank; three times as many behind the buses and a rank."""


class Opening(NamedTuple):
    """A row in a row buffer, from the cycle of the command that opens it to that of the one that closes it (or None)."""

    buffer: int
    bank: int
    row: int
    begin: int
    end: int | None
    for_pim: bool


class Lane(NamedTuple):
    """A strip of the picture; ``top`` and ``height`` count lanes from the top."""

    label: str
    top: float
    height: float


class Bar(NamedTuple):
    """A span of cycles on a lane."""

    lane: Lane
    begin: float
    end: float
    colour: str


def row_openings(spec: ResolvedSpec, log: Int64Array) -> list[Opening]:
    """The rows that the commands of one channel open, in the order in which they close; those left open last.

    ``log``: int64 [commands, LOG_FIELDS], in order of time.
    """
    fields = _fields(log)
    row_commands = np.isin(fields["command"], (ACT, PRE, PREA, PIM_ACT, PIM_PRE))
    opened: dict[tuple[int, int], Opening] = {}
    closed: list[Opening] = []
    columns = (fields[name][row_commands].tolist() for name in ("cycle", "command", "bank", "row"))
    for cycle, command, bank, row in zip(*columns, strict=True):
        buffer = PIM if spec.dual and command in (PIM_ACT, PIM_PRE) else MEMORY
        for each in addressed_banks(spec.config, COMMANDS[command], bank):
            if command in (ACT, PIM_ACT):
                opened[buffer, each] = Opening(buffer, each, row, cycle, None, command == PIM_ACT)
            elif (buffer, each) in opened:
                closed.append(opened.pop((buffer, each))._replace(end=cycle))
    return closed + list(opened.values())


def draw_command_timeline(
    spec: ResolvedSpec,
    log: Int64Array,
    channel: int = 0,
    begin: int | None = None,
    cycles: int = 600,
    banks: Sequence[int] | None = None,
) -> Figure:
    """Lanes over time: command buses, data buses, and the row buffers of each bank.

    Parameters
    ----------
    log: int64 [commands, LOG_FIELDS], in order of time and from the beginning, so that it is known which rows are open.
    channel: the channel to show.
    begin, cycles: the window; it begins with the channel's first command unless given.
    banks: numbers in the channel; those that have a row open in the window or are refreshed in it unless given.

    Raises InputError for banks that do not exist, and for a channel or a window without commands.
    """
    view = _View.of(spec, log, channel, begin, cycles, banks)
    height = view.depth * LANE + 1.3
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, height))
        panel = figure.subplots()
        panel.set_xlim(view.begin, view.end)
        panel.set_ylim(view.depth, 0)
        work = list(view.bank_work())
        _draw_bars(panel, view.open_rows())
        _draw_bars(panel, [*work, *view.row_commands(), *view.buses()])
        _write_rows(panel, view, work)
        _label(panel, view)
        title = f"{spec.config.name}: channel {channel}, cycles {view.begin:,} to {view.end:,}"
        panel.set_title(title, loc="left", fontsize=9, fontweight="bold", pad=6)
        handles = _legend(view)
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=6.5, handlelength=1.2)
    return figure


@dataclass(frozen=True)
class _View:
    """What is shown: a window of one channel's commands, and the lanes for it."""

    spec: ResolvedSpec
    begin: int
    end: int
    fields: Mapping[str, Int64Array]
    """Commands that show in the window, those whose work began before it included."""
    openings: list[Opening]
    command_lanes: list[Lane]
    data_lanes: list[Lane]
    bank_lanes: dict[tuple[int, int], Lane]
    """By row buffer and bank."""
    depth: float
    """Lanes from top to bottom."""

    @staticmethod
    def of(
        spec: ResolvedSpec, log: Int64Array, channel: int, begin: int | None, cycles: int, banks: Sequence[int] | None
    ) -> _View:
        fields = _fields(log)
        own = log[fields["channel"] == channel]
        if len(own) == 0:
            used = ", ".join(map(str, np.unique(fields["channel"]))) or "none"
            raise InputError(f"no command on channel {channel}; channels with commands: {used}")
        own = own[np.argsort(own[:, 0], kind="stable")]
        first, last = int(own[0, 0]), int(own[-1, 0])
        begin = first if begin is None else begin
        end = begin + cycles
        if not np.any((own[:, 0] >= begin) & (own[:, 0] < end)):
            raise InputError(f"no command in cycles {begin} to {end}; the commands lie in {first} to {last}")
        own = own[own[:, 0] < end]
        openings = [o for o in row_openings(spec, own) if o.end is None or o.end > begin]
        shown = _fields(own[own[:, 0] >= begin - _longest(spec, own)])
        chosen = _active_banks(spec, shown, openings) if banks is None else _existing(spec, banks)
        return _View(spec, begin, end, shown, openings, *_lanes(spec, chosen))

    @property
    def stroke(self) -> float:
        """Cycles that a command is wide at least."""
        return max(1.0, (self.end - self.begin) * STROKE)

    def commands(self, *kinds: int) -> Iterator[tuple[int, int, int, int]]:
        """(cycle, command, bank, tag) of the commands of some kinds, or of all."""
        chosen = np.isin(self.fields["command"], kinds) if kinds else np.ones(len(self.fields["cycle"]), dtype=bool)
        columns = (self.fields[name][chosen].tolist() for name in ("cycle", "command", "bank", "tag"))
        return zip(*columns, strict=True)

    def open_rows(self) -> Iterator[Bar]:
        """A bar per opening, rows that follow each other in different shades."""
        shades: Counter[tuple[int, bool]] = Counter()
        for opening in sorted(self.openings, key=lambda opening: opening.begin):
            shades[opening.bank, opening.for_pim] += 1
            lane = self.bank_lanes.get((opening.buffer, opening.bank))
            if lane is not None:
                end = self.end + 1 if opening.end is None else opening.end
                colour = OPEN[opening.for_pim][shades[opening.bank, opening.for_pim] % 2]
                yield Bar(lane, opening.begin, end, colour)

    def row_commands(self) -> Iterator[Bar]:
        """A stroke where a row is opened, and one where it is closed."""
        for opening in self.openings:
            lane = self.bank_lanes.get((opening.buffer, opening.bank))
            if lane is not None:
                yield Bar(
                    lane, opening.begin, opening.begin + self.stroke, WORK["PIM_ACT" if opening.for_pim else "ACT"]
                )
                if opening.end is not None:
                    name = "PIM_PRE" if opening.buffer == PIM else "PRE"
                    yield Bar(lane, opening.end, opening.end + self.stroke, WORK[name])

    def bank_work(self) -> Iterator[Bar]:
        """What keeps a row buffer at work: reads, writes, dot-products, GWRITEs, refreshes."""
        spec = self.spec
        dot = dot_product_cycles(spec) if spec.has_pim else 0
        for cycle, command, bank, tag in self.commands(RD, WR, GEMV, GWRITE, REF, REFPB):
            name = COMMANDS[command]
            length = {GEMV: max(1, dot * tag), GWRITE: spec.gwrite_latency}.get(command, self.stroke)
            if command in (REF, REFPB):
                length = refresh_cycles(spec, name)
            buffers = (MEMORY, PIM) if command in (REF, REFPB) else (PIM if command == GEMV and spec.dual else MEMORY,)
            for each in addressed_banks(spec.config, COMMANDS[command], bank):
                for buffer in buffers:
                    if (buffer, each) in self.bank_lanes:
                        yield Bar(self.bank_lanes[buffer, each], cycle, cycle + length, WORK[name])

    def buses(self) -> Iterator[Bar]:
        """Cycles in which the command buses and the data buses are taken."""
        spec = self.spec
        burst, (result, per_dot) = spec.burst_cycles, spec.result_latency
        for cycle, command, bank, tag in self.commands():
            name = COMMANDS[command]
            lane = self.command_lanes[spec.command_bus[command]]
            yield Bar(lane, cycle, cycle + max(spec.command_cycles[command], self.stroke), WORK[name])
            if command in (RD, WR):
                latency = spec.read_latency if command == RD else spec.write_latency
                yield Bar(
                    self.data_lanes[place_of(spec, bank)[0]], cycle + latency - burst, cycle + latency, WORK[name]
                )
            elif command == GEMV:
                end = cycle + result + per_dot * max(tag, spec.config.pim.pipeline_dots)
                for data in self.data_lanes:
                    yield Bar(data, end - burst, end, WORK[name])


def _fields(log: Int64Array) -> dict[str, Int64Array]:
    return dict(zip(LOG_FIELDS, log.T, strict=True))


def _longest(spec: ResolvedSpec, log: Int64Array) -> int:
    """Cycles for which a command of the log can show."""
    base, per_dot = spec.result_latency
    result = base + per_dot * max(int(_fields(log)["tag"].max()), spec.config.pim.pipeline_dots) if spec.has_pim else 0
    return max(
        refresh_cycles(spec, "REF"), refresh_cycles(spec, "REFPB"), spec.gwrite_latency, spec.read_latency, result
    )


def _active_banks(spec: ResolvedSpec, fields: Mapping[str, Int64Array], openings: Iterable[Opening]) -> list[int]:
    banks = {opening.bank for opening in openings}
    if not banks:
        for command, bank in zip(fields["command"].tolist(), fields["bank"].tolist(), strict=True):
            banks.update(addressed_banks(spec.config, COMMANDS[command], bank))
    return sorted(banks)


def _existing(spec: ResolvedSpec, banks: Iterable[int]) -> list[int]:
    count = spec.config.organization.banks
    for bank in banks:
        if not 0 <= bank < count:
            raise InputError(f"memory {spec.config.name!r} has no bank {bank} in a channel; allowed: 0 to {count - 1}")
    return sorted(set(banks))


def _lanes(
    spec: ResolvedSpec, banks: Sequence[int]
) -> tuple[list[Lane], list[Lane], dict[tuple[int, int], Lane], float]:
    top = 0.0
    names = ("row commands", "column commands") if len(set(spec.command_bus)) > 1 else ("commands",)
    command_lanes, data_lanes = [], []
    for name in names:
        command_lanes.append(Lane(name, top, 1.6))
        top += 1.6 + GAP
    buses = spec.config.organization.pseudo_channels
    for number in range(buses):
        data_lanes.append(Lane("data" if buses == 1 else f"data {number}", top, 1.6))
        top += 1.6 + GAP
    bank_lanes: dict[tuple[int, int], Lane] = {}
    above: tuple[int, ...] = ()
    for bank in banks:
        rank = place_of(spec, bank)[:2]
        top += 0 if rank == above else 3 * GAP
        above = rank
        text = ".".join(str(place_of(spec, bank)[index]) for index, _ in _several(spec))
        for buffer in (MEMORY, PIM) if spec.dual else (MEMORY,):
            bank_lanes[buffer, bank] = Lane(text if buffer == MEMORY else "", top, 1)
            top += 1
        top += GAP
    return command_lanes, data_lanes, bank_lanes, top


def _several(spec: ResolvedSpec) -> list[tuple[int, str]]:
    """The levels of the hierarchy that tell banks apart: index in a bank's place, and name."""
    sizes = spec.config.organization
    counts = {
        "pc": sizes.pseudo_channels,
        "rank": sizes.ranks,
        "group": sizes.bank_groups,
        "bank": sizes.banks_per_group,
    }
    return [(index, name) for index, (name, count) in enumerate(counts.items()) if count > 1] or [(3, "bank")]


def _draw_bars(panel: Axes, bars: Iterable[Bar]) -> None:
    by_colour: dict[str, list[list[tuple[float, float]]]] = {}
    for lane, begin, end, colour in bars:
        bottom = lane.top + lane.height
        corners = [(begin, lane.top), (end, lane.top), (end, bottom), (begin, bottom)]
        by_colour.setdefault(colour, []).append(corners)
    for colour, rectangles in by_colour.items():
        panel.add_collection(PolyCollection(rectangles, facecolors=colour, edgecolors="none", linewidths=0))


def _write_rows(panel: Axes, view: _View, work: Iterable[Bar]) -> None:
    """The row's number in every bar that has room for it, before or behind what is at work."""
    busy: dict[Lane, list[Bar]] = {}
    for bar in work:
        busy.setdefault(bar.lane, []).append(bar)
    cycle_points = (WIDTH - 1.0) * 72 / (view.end - view.begin)
    for opening in view.openings:
        lane = view.bank_lanes.get((opening.buffer, opening.bank))
        if lane is None:
            continue
        begin, end = max(opening.begin, view.begin), min(view.end if opening.end is None else opening.end, view.end)
        within = [bar for bar in busy.get(lane, ()) if bar.end > begin and bar.begin < end]
        free = [
            (begin, min((bar.begin for bar in within), default=end)),
            (max((bar.end for bar in within), default=end), end),
        ]
        text = str(opening.row)
        room = (3.0 * len(text) + 4) / cycle_points
        for left, right in free:
            if right - left > room:
                x = left + 2.5 / cycle_points
                panel.text(
                    x, lane.top + 0.54 * lane.height, text, fontsize=4.4, va="center", color="#333333", clip_on=True
                )
                break


def _label(panel: Axes, view: _View) -> None:
    """Names beside the lanes, and the axes."""
    lanes = [*view.command_lanes, *view.data_lanes, *view.bank_lanes.values()]
    named = [lane for lane in lanes if lane.label]
    depth = 2 if view.spec.dual else 1
    banks = {lane.label for lane in view.bank_lanes.values()}
    centres = [lane.top + (depth if lane.label in banks else lane.height) / 2 for lane in named]
    panel.set_yticks(centres, [lane.label for lane in named], fontsize=5.5)
    panel.tick_params(axis="y", length=0, pad=2)
    panel.tick_params(axis="x", labelsize=7)
    first = next(iter(view.bank_lanes.values()))
    header = ".".join(name for _, name in _several(view.spec))
    panel.annotate(
        header, (0, first.top), (-2, 1), xycoords=("axes fraction", "data"), textcoords="offset points",
        ha="right", va="bottom", fontsize=5, color=FAINT, style="italic",
    )  # fmt: skip
    panel.set_xlabel("cycle of the command clock", fontsize=8)
    panel.spines["left"].set_visible(False)


def _legend(view: _View) -> list[Patch]:
    """What the colours mean, of those in the picture."""
    seen = {COMMANDS[command] for _, command, _, _ in view.commands()}
    dual = view.spec.dual
    entries = [("row open in the memory row buffer (above)" if dual else "row open", OPEN[False][1])]
    if view.spec.has_pim:
        entries.append(("row open in the PIM row buffer (below)" if dual else "row open for PIM", OPEN[True][1]))
    grouped: dict[str, list[str]] = {}
    for name, colour in WORK.items():
        if name in seen:
            grouped.setdefault(colour, []).append({"GEMV": "GEMV: dot-products, result"}.get(name, name))
    entries += [(", ".join(names), colour) for colour, names in grouped.items()]
    return [Patch(facecolor=colour, edgecolor="none", label=text) for text, colour in entries]
