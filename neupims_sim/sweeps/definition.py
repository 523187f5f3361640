"""The sweep file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from neupims_sim.config.bounds import MOST_SEED, Seed, Whole
from neupims_sim.errors import shown
from neupims_sim.showing import Shown
from neupims_sim.sweeps.labels import Labels, LabelSettings
from neupims_sim.sweeps.ranges import MAX_VALUES, listed_values
from neupims_sim.sweeps.reference import ReferenceSettings, RelativeSettings

DEFAULT_METRICS = (
    "throughput_tokens_per_s",
    "utilization.npu",
    "utilization.pim",
    "utilization.bandwidth",
    "block_cycles",
)


def _listed(value: Any) -> Any:
    """One thing as a list of one."""
    return [value] if isinstance(value, str | Mapping) else value


Text = Annotated[str, Field(min_length=1)]
Settings = dict[str, Any]
"""Configuration keys, dotted or nested."""
Values = Annotated[list[Any], BeforeValidator(listed_values), Field(min_length=1)]
"""A list, ``{range: [start, stop, step]}`` or ``{geometric: [start, stop, factor]}``."""
Grid = dict[str, Values]
Step = dict[str, Any]
"""What one step of a dimension of a sweep sets: axis -> value."""
Zip = Annotated[list[Annotated[Grid, Field(min_length=1)]], BeforeValidator(_listed)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MAX_VALUES)]
Repeats = Annotated[int, Field(strict=True, ge=1, le=MAX_VALUES)]
Aggregate = Literal["mean", "minimum", "maximum"]
Variants = dict[str, Annotated[dict[Text, Settings], Field(min_length=1)]]


def _with_a_seed_to_count_from(settings: Settings) -> Settings:
    seed = settings.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED - MAX_VALUES:
        raise ValueError(f"seed={shown(seed)} must be a whole number from 0 to {MOST_SEED - MAX_VALUES}")
    return settings


class _Part(Shown, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableSettings(_Part):
    """A pivot table of a page."""

    title: Text
    rows: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    """Axes whose values head the rows."""
    columns: str | None = None
    """The axis whose values head the columns; without one each value has a column of its own."""
    value: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    """The column of ``points.csv`` that is shown; several where no axis heads the columns."""
    relative_to: Any = None
    """A value of the first axis in ``rows``: beside the others' numbers stands their ratio to its (of the same other axes).
    Without ``columns`` only."""
    decimals: Annotated[int, Whole(0, 15)] | None = None
    """Those of the column's label unless given."""
    over: Annotated[list[Aggregate], BeforeValidator(_listed)] = []
    """What to show of the points that differ on axes in neither rows nor columns: every one stands behind the value's name.
    Without it there may be no such axes (but that of the seeds, over which the mean is shown)."""
    only: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    """Axis -> value or values: the points that the table is about."""


class Quick(_Part):
    """What a quick form of the sweep has in place of the file's own: axes as a whole, keys of ``base`` one by one."""

    base: Settings = {}
    grid: Grid = {}
    variants: Variants = {}
    zip: Zip = []
    """In place of all groups."""
    repeats: Repeats | None = None
    seeds: Seeds | None = None


class Sweep(_Part):
    """A sweep file: the product of values of configuration keys, of keys that vary together, of named settings, and of seeds."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """Names the folder of the results."""
    title: str = ""
    base: Annotated[Settings, AfterValidator(_with_a_seed_to_count_from)] = {}
    """Configuration keys that all points share. ``system`` is a system's name or a YAML file."""
    variants: Variants = {}
    """Axes whose values set several keys at once: name of the axis -> label of the value -> settings, on top of ``base``.
    They vary slowest."""
    zip: Zip = []
    """Groups of axes that are a configuration key each and go through their values together. Lists of a group are equally long."""
    grid: Grid = {}
    """Axes that are a configuration key each: dotted key (``system`` among them) -> values. The last one varies fastest."""
    repeats: Repeats | None = None
    """Runs of every point, with the seeds from that of ``base`` (0) up: the axis ``seed``, which varies fastest of all."""
    seeds: Seeds | None = None
    """The seeds of these runs themselves, in place of their number."""
    exclude: list[Annotated[dict[str, Any], Field(min_length=1)]] = []
    """Points to leave out: those that have, for every axis of one of the entries, the value or one of the list of values."""
    metrics: Annotated[list[str], Field(min_length=1)] = list(DEFAULT_METRICS)
    """Numbers of the result that become columns of the table: dotted keys of ``result.json``."""
    reference: ReferenceSettings | None = None
    """Figures of others, such as published ones, as further columns."""
    relative: dict[Text, RelativeSettings] = {}
    """Further columns: ratios of a column between points."""
    derive: dict[Text, str] = {}
    """Further columns: name -> expression over axes and all columns above (see `sweeps.derivation`)."""
    labels: dict[str, LabelSettings] = {}
    """How columns are shown."""
    names: dict[str, dict[str, str]] = {}
    """How values of axes are shown: axis -> value -> text."""
    plot: Annotated[list[dict[str, Any]], BeforeValidator(_listed)] = []
    """One plot or several: ``kind``, and the options of that plot."""
    tables: list[TableSettings] = []
    """Tables for the page of an experiment."""
    quick: Quick | None = None

    @property
    def dimensions(self) -> list[list[Step]]:
        """What varies independently, slowest first: the steps of each. A point is one step of every dimension."""
        steps = [[{axis: name} for name in labels] for axis, labels in self.variants.items()]
        steps += [
            [dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)] for group in self.zip
        ]
        return steps + [[{axis: value} for value in values] for axis, values in (self.grid | self.repeated).items()]

    @property
    def places(self) -> int:
        """How many combinations the dimensions have, those included that ``exclude`` leaves out."""
        return math.prod(map(len, self.dimensions))

    @property
    def axes(self) -> list[str]:
        """The names of the axes, in order."""
        return [*self.variants, *self.keys]

    @property
    def text_axes(self) -> list[str]:
        """The axes whose values are labels: those of variants, and those with a text among their values."""
        return [axis for axis in self.axes if any(isinstance(value, str) for value in self.values(axis))]

    @property
    def keys(self) -> Grid:
        """The axes that are a configuration key each, and their values."""
        return {axis: values for group in self.zip for axis, values in group.items()} | self.grid | self.repeated

    @property
    def repeated(self) -> Grid:
        """The axis that only repeats every point, if there is one: ``seed``."""
        if self.repeats is not None:
            first = self.base.get("seed", 0)
            return {"seed": [first + number for number in range(self.repeats)]}
        return {} if self.seeds is None else {"seed": list(self.seeds)}

    @property
    def columns(self) -> list[str]:
        """The columns of the table that hold numbers: metrics, then those that are joined and computed."""
        return [*self.metrics, *self.reference_columns, *self.relative, *self.derive]

    @property
    def reference_columns(self) -> list[str]:
        """The columns of figures of others."""
        return [] if self.reference is None else self.reference.parsed.columns(self.axes)

    def values(self, axis: str) -> list[Any]:
        """The values, or labels, on an axis."""
        return list(self.variants[axis]) if axis in self.variants else self.keys[axis]

    def shown_labels(self) -> Labels:
        """How columns and values of axes are shown."""
        return Labels(self.axes, self.labels, self.names, self.text_axes)

    def quick_form(self) -> Sweep:
        """The sweep with what ``quick`` replaces; itself if it replaces nothing."""
        if self.quick is None:
            return self
        changes: dict[str, Any] = {
            "base": self.base | dotted(self.quick.base),
            "grid": self.grid | self.quick.grid,
            "variants": self.variants | self.quick.variants,
            "zip": self.quick.zip or self.zip,
        }
        if self.quick.repeats or self.quick.seeds:
            changes |= {"repeats": self.quick.repeats, "seeds": self.quick.seeds}
        return self.model_copy(update=changes)


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Settings:
    """Settings by dotted keys only. A complete section (a mapping with a ``name`` of its own) stays whole."""
    found: Settings = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and "name" not in value:
            found |= dotted(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
