"""Whether a plot does what every plot promises (docs/plots.md)."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from neupims_sim.errors import InputError
from neupims_sim.sweeps import Labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES: Mapping[str, Sequence[Any]] = {
    "system": ["npu_pim", "neupims"],
    "setting": ["base", "bandwidth: low", "bandwidth: high"],
    "workload.batch_size": [64, 256],
}
"""Of the made-up table."""
OPERATORS = {"qkv": "systolic arrays", "gelu": "vector units", "logits": "PIM"}
TITLE = "A title"
Draw = Callable[[pd.DataFrame, Mapping[str, Any]], "Figure"]
Failures = Iterator[str]


def check_plot(name: str, options: Mapping[str, Any] | None = None, table: pd.DataFrame | None = None) -> None:
    """Draw a plot of a made-up table in several ways, and complain about all that it should not do.

    Parameters
    ----------
    name: a registered plot, or ``package.module:function``.
    options: those that it needs, as in the ``plot`` of a sweep file.
    table: results to draw, whose first columns, as many as in :data:`AXES`, are the axes; :func:`made_up_table` unless given.

    Raises
    ------
    AssertionError: with a line for every broken promise.
    InputError: there is no such plot.
    """
    from neupims_sim.plots import PLOTS  # here, because Matplotlib is slow to load

    plot, stated = PLOTS[name], dict(options or {})
    table = made_up_table() if table is None else table
    axes = [str(column) for column in table.columns[: len(AXES)]]
    complete = {"title": TITLE, **stated, "axes": axes, "labels": Labels(axes)}
    found = [failure for check in _CHECKS for failure in _carried_out(check, plot, table.copy(), complete)]
    if found:
        raise AssertionError("\n".join([f"plot {name!r} breaks {len(found)} promises:", *found]))


def made_up_table() -> pd.DataFrame:
    """One row per place on :data:`AXES`, with the columns that results of decoding have, all numbers different and positive."""
    table = pd.DataFrame(list(itertools.product(*AXES.values())), columns=list(AXES))
    count = pd.Series(range(1, len(table) + 1), dtype=float)
    columns: dict[str, Any] = {
        "throughput_tokens_per_s": 1000 * count,
        "throughput_per_s": 1000 * count,
        "block_cycles": 1e5 + 100 * count,
        "cycles": 1e6 + 1000 * count,
        "seconds": (1e6 + 1000 * count) / 1e9,
        "average_power_w": 100 - count,
        **{f"utilization.{unit}": 0.01 * place * count for place, unit in enumerate(("npu", "pim", "bandwidth"), 1)},
        **{f"stages.{stage}": 1e4 * place + count for place, stage in enumerate("ABCDEF", 1)},
        **{f"energy_joules.{cause}": 0.01 * count for cause in ("memory_read", "npu_mac")},
        "peak.npu_flops_per_s": 1e14,
        "peak.vector_flops_per_s": 1e12,
        "peak.memory_bytes_per_s": 1e12,
        "peak.pim_flops_per_s": 1e13,
        "peak.pim_bytes_per_s": 1e13,
    }
    for place, (operator, unit) in enumerate(OPERATORS.items(), start=1):
        columns |= {
            f"operator_cycles.{operator}": 1e4 * place + count,
            f"operator_flops.{operator}": 1e7 * place * count,
            f"operator_bytes.{operator}": 1e6 * count,
            f"operator_busy_cycles.{operator}": 1e4 * place + count,
            f"operator_unit.{operator}": unit,
        }
    return table.assign(**columns)


Check = Callable[[Draw, pd.DataFrame, dict[str, Any]], Failures]


def _carried_out(check: Check, plot: Draw, table: pd.DataFrame, options: dict[str, Any]) -> Failures:
    """What a check finds; an exception that it does not expect is a finding, too."""
    from matplotlib import rc_context

    from neupims_sim.plots.style import STYLE

    promise = " ".join((check.__doc__ or "").split())
    try:
        with rc_context(STYLE):
            for failure in check(plot, table, options):
                yield f"- {promise} {failure}"
    except Exception as error:
        yield f"- {promise} {type(error).__name__}: {error}"


def _returns_a_figure(plot: Draw, table: pd.DataFrame, options: dict[str, Any]) -> Failures:
    """It returns a Matplotlib Figure with something in it."""
    from matplotlib.figure import Figure

    figure = plot(table, options)
    if not isinstance(figure, Figure):
        yield f"It returned {type(figure).__name__}."
    elif not any(panel.has_data() for panel in figure.axes):
        yield "Its panels are empty."


def _shows_title_and_unit(plot: Draw, table: pd.DataFrame, options: dict[str, Any]) -> Failures:
    """The figure has the title, and the label of an axis a unit in parentheses."""
    figure = plot(table, options)
    title = " ".join(figure.get_suptitle().split())
    if title != options["title"]:
        yield f"The title is {title!r}, not {options['title']!r}."
    labels = [label for panel in figure.axes for label in (panel.get_xlabel(), panel.get_ylabel()) if label]
    if not any("(" in label for label in labels):
        yield f"The labels are {labels}."


def _leaves_the_table(plot: Draw, table: pd.DataFrame, options: dict[str, Any]) -> Failures:
    """It does not change the table."""
    copy = table.copy(deep=True)
    plot(table, options)
    if not copy.equals(table):
        yield "It did."


def _repeats_to_the_byte(plot: Draw, table: pd.DataFrame, options: dict[str, Any]) -> Failures:
    """The same table is the same file, to the byte."""
    from neupims_sim.plots.files import save_figure

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.svg" for number in (1, 2)]
        for file in files:
            save_figure(plot(table, options), file)
        if files[0].read_bytes() != files[1].read_bytes():
            yield "Two svg files differ."


def _refuses_what_it_does_not_know(plot: Draw, table: pd.DataFrame, options: dict[str, Any]) -> Failures:
    """It refuses an unknown option, an unknown metric and a table without points with an InputError of one line."""
    cases = {
        "the option no_such_option": (table, options | {"no_such_option": 1}),
        "the metric no_such_metric": (table, options | {"metric": "no_such_metric"}),
        "a table without points": (table.iloc[:0], options),
    }
    for what, (points, stated) in cases.items():
        try:
            plot(points, stated)
        except InputError as error:
            if "\n" in str(error) or ("no_such" in what and what.split()[-1] not in str(error)):
                yield f"For {what} it said {str(error)!r}."
        else:
            yield f"It drew {what}."


def _copes_with_failed_points(plot: Draw, table: pd.DataFrame, options: dict[str, Any]) -> Failures:
    """It draws a table with a failed point, and one of a single point unless it needs more (InputError)."""
    failed = table.copy()
    numbers = [column for column in table.columns[len(AXES) :] if pd.api.types.is_numeric_dtype(table[column])]
    failed.loc[len(failed) - 1, numbers] = float("nan")
    plot(failed, options).draw_without_rendering()
    try:
        plot(table.iloc[:1], options).draw_without_rendering()
    except InputError as error:
        if "\n" in str(error):
            yield f"For a single point it said {str(error)!r}."


_CHECKS: Sequence[Check] = (
    _returns_a_figure,
    _shows_title_and_unit,
    _leaves_the_table,
    _repeats_to_the_byte,
    _refuses_what_it_does_not_know,
    _copes_with_failed_points,
)
