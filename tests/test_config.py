"""Configuration: how files, presets and overrides combine, and what an error tells."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from neupims_sim.config import (
    Config,
    available,
    check_config,
    check_file,
    config_hash,
    dump_config,
    load_config,
    load_memory,
    load_section,
    yaml_text,
)
from neupims_sim.config.loader import merge
from neupims_sim.config.memory import Constraint
from neupims_sim.config.presets import preset_chain, row_tags
from neupims_sim.errors import MOST_MESSAGE, InputError
from neupims_sim.simulation import simulate
from neupims_sim.sweeps import read_sweep

SYSTEMS = ("neupims", "npu_only", "npu_pim")
PRESETS = ("physical", "asplos24")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def message(*arguments: Any) -> str:
    """What load_config refuses with."""
    with pytest.raises(InputError) as caught:
        load_config(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- shipped files ---


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_shipped_system_loads_under_every_preset(system: str, preset: str) -> None:
    config = load_config(system, {"preset": preset})
    assert (config.system, config.preset) == (system, preset)


@pytest.mark.parametrize(
    "path",
    [
        p
        for folder in ("systems", "npu", "memory", "models", "workloads", "presets")
        for p in available(folder).values()
    ],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_shipped_file_is_valid(path: Path) -> None:
    check_file(path)


def test_physical_is_the_default_preset_and_states_the_defaults_of_the_schema() -> None:
    config = load_config("neupims")
    assert config.preset == "physical"
    assert config.mapping == type(config.mapping)()


def test_a_preset_builds_on_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "configs/presets/mine.yaml", "base: asplos24\nmapping: {write_kv: true}\n")
    monkeypatch.chdir(tmp_path)
    mine, base = (load_config("npu_only", {"preset": name}) for name in ("mine", "asplos24"))
    assert mine.preset == "mine"
    assert (base.mapping.write_kv, mine.mapping.write_kv) == (False, True)
    assert mine.mapping.npu_attention == "serial"  # by_system of the base
    assert mine.memory.controller.scheduling == base.memory.controller.scheduling != load_memory("hbm2").controller
    assert preset_chain("mine") == ("physical_2024", "asplos24", "mine")
    rows = load_memory("hbm2_pim_dual").constraints
    held = [
        [row for row in rows if row.holds(row_tags(mine.memory, name))] for name in ("mine", "asplos24", "physical")
    ]
    assert held[0] == held[1] != held[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: asplos", r"mine.yaml: base='asplos': no such file in configs/presets; .*did you mean asplos24\?"),
        ("base: mine", r"mine.yaml: base='mine': base goes in a circle: mine -> mine"),
        ("base: [asplos24]", r"mine.yaml: base=\['asplos24'\]: must be the name of a preset"),
    ],
)
def test_a_wrong_base_of_a_preset_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    write(tmp_path / "configs/presets/mine.yaml", text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load_config("npu_only", {"preset": "mine"})


def test_a_tag_may_be_negated() -> None:
    row = Constraint.model_validate(["bank", "ACT", "RD", "tRCD", {"when": ["dual", "not asplos24"]}])
    assert [row.holds(tags) for tags in ({"dual"}, {"dual", "asplos24"}, {"single"})] == [True, False, False]


def test_asplos24_drains_the_arrays_before_a_preload_only_without_pim() -> None:
    preload = {system: load_config(system, ["preset=asplos24"]).npu.systolic.preload for system in SYSTEMS}
    assert preload == {"neupims": "overlapped", "npu_pim": "overlapped", "npu_only": "serial"}


def test_model_file_suggests_the_parallel_degrees_of_the_published_evaluation() -> None:
    parallel = load_config("neupims", ["model=gpt3-175b"]).parallel
    assert (parallel.tensor, parallel.pipeline) == (8, 4)
    assert load_config("neupims", ["model=gpt3-175b", "parallel.tensor=4"]).parallel.tensor == 4


# --- merge order ---


def test_preset_wins_over_a_shipped_system_and_an_override_over_the_preset() -> None:
    assert load_config("neupims", ["preset=asplos24"]).mapping.write_kv is False
    assert load_config("neupims", ["preset=asplos24", "mapping.write_kv=true"]).mapping.write_kv is True


def test_users_file_wins_over_the_preset(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "include: systems/npu_only\npreset: asplos24\nmapping: {write_kv: true}\n")
    config = load_config(path)
    assert config.mapping.write_kv is True
    assert config.mapping.npu_attention == "serial"  # by_system of the included system
    assert config.system == "npu_only"


def test_later_include_wins_and_the_including_file_wins_over_both(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "seed: 1\nsimulation: {layers: 2}\n")
    write(tmp_path / "b.yaml", "seed: 2\nsimulation: {layers: 4}\n")
    path = write(tmp_path / "c.yaml", "include: [neupims, a.yaml, b.yaml]\nsimulation: {layers: 5}\n")
    config = load_config(path)
    assert (config.seed, config.simulation.layers) == (2, 5)


def test_system_dropped_into_the_local_configs_is_found_and_yields_to_the_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "configs/systems/variant.yaml", "include: systems/npu_only\nmapping: {write_kv: true}\n")
    monkeypatch.chdir(tmp_path)
    config = load_config("variant", ["preset=asplos24"])
    assert (config.system, config.mapping.write_kv, config.mapping.npu_attention) == ("variant", False, "serial")
    assert {"variant", "neupims"} <= available("systems").keys()


def test_memory_table_states_what_a_preset_assumes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.yaml",
        "base: hbm2_pim_dual\ncontroller: {row_hit_cap: 3}\npresets: {asplos24: {controller: {row_hit_cap: 7}}}\n",
    )
    caps = [load_memory(path, preset).controller.row_hit_cap for preset in PRESETS]
    assert caps == [3, 7]
    assert load_memory(path, "asplos24", ["controller.row_hit_cap=9"]).controller.row_hit_cap == 9
    config = load_config("neupims", {"memory": str(path), "preset": "asplos24", "memory.controller.row_hit_cap": 9})
    assert config.memory.controller.row_hit_cap == 9


# --- named sections ---


def test_detail_holds_on_top_of_a_name_in_either_order() -> None:
    one = load_config("neupims", ["model=gpt3-13b", "model.layers=2"])
    other = load_config("neupims", ["model.layers=2", "model=gpt3-13b"])
    assert one == other
    assert (one.model.name, one.model.layers, one.model.heads) == ("gpt3-13b", 2, 40)


def test_new_name_drops_what_weaker_sources_changed_in_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path / "small.yaml", "include: neupims\nmodel: {base: gpt3-7b, layers: 1}\n")
    assert load_config(path).model.layers == 1
    assert load_config(path, ["model=gpt3-13b"]).model.layers == 40


def test_preset_keeps_holding_under_a_new_name(tmp_path: Path) -> None:
    npu = write(tmp_path / "npu/mine.yaml", "base: neupims_npu\nsystolic: {arrays: 4}\n")
    config = load_config("neupims", {"npu": str(npu), "preset": "asplos24"})
    assert (config.npu.name, config.npu.systolic.arrays, config.npu.systolic.sharing) == ("mine", 4, "fused")


def test_complete_table_replaces_the_named_file() -> None:
    table = load_config("npu_pim").memory.model_dump(mode="json") | {"name": "own", "constraints": []}
    config = load_config("neupims", {"memory": table})
    assert (config.memory.name, config.memory.constraints, config.memory.row_buffers) == ("own", (), "single")


def test_head_size_follows_overridden_heads() -> None:
    model = load_config("neupims", ["model.heads=16", "model.d_model=1024"]).model
    assert (model.head_size, model.kv_heads) == (64, 16)


def test_constraint_rows_of_a_variant_are_appended(tmp_path: Path) -> None:
    path = write(tmp_path / "memory/variant.yaml", "base: hbm2\nconstraints:\n  - [bank, ACT, PRE, 99]\n")
    base, variant = load_memory("hbm2"), load_memory(path)
    assert variant.constraints[:-1] == base.constraints
    assert variant.constraints[-1].latency == "99"
    assert variant.name == "variant"


def test_override_replaces_the_constraint_table() -> None:
    assert load_memory("hbm2", overrides={"constraints": []}).constraints == ()


def test_request_batch_beside_the_file_that_names_it_is_found(tmp_path: Path) -> None:
    batch = write(tmp_path / "batch.csv", "seq_len,ch_idx\n10,0\n")
    path = write(tmp_path / "mine.yaml", "include: neupims\nworkload: {requests: batch.csv}\n")
    assert load_config(path).workload.requests == str(batch)


# --- values ---


@pytest.mark.parametrize(("text", "size"), [("1 MiB", 2**20), ("64 KB", 64000), ("4096", 4096)])
def test_sizes_may_carry_units(text: str, size: int) -> None:
    assert load_config("neupims", [f"npu.scratchpad_bytes={text}"]).npu.scratchpad_bytes == size


def test_off_is_a_word_and_not_false() -> None:
    assert load_config("neupims", ["scheduling.interleaving=off"]).scheduling.interleaving == "off"


# --- errors: source, key path, value, what is allowed, nearest name ---


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("npu.systolic.dataflow=wss", ["--set: npu.systolic.dataflow='wss'", "allowed:", "mean ws?"]),
        ("scheduling.interleavin=off", ["--set: scheduling.interleavin='off'", "unknown key", "mean interleaving?"]),
        ("modle.layers=2", ["--set: modle=", "unknown key", "mean model?"]),
        ("model=gpt3-7", ["--set: model='gpt3-7'", "configs/models", "mean gpt3-7b?"]),
        ("memory.base=hbm2_pim_dul", ["--set: memory='hbm2_pim_dul'", "configs/memory", "mean hbm2_pim_dual?"]),
        ("preset=asplos", ["--set: preset='asplos'", "mean asplos24?"]),
        ("model.layers=0", ["--set: model.layers=0", "greater than 0"]),
        ("model.layers=many", ["--set: model.layers='many'", "valid integer"]),
        ("npu.scratchpad_bytes=1 MeB", ["--set: npu.scratchpad_bytes='1 MeB'", "not a size"]),
        ("model=3", ["--set: model=3", "name or a mapping"]),
        ("parallel=4", ["--set: parallel=4", "must be a mapping"]),
        ("model.d_model=100", ["--set: model.d_model=100", "model.heads=32"]),
        ("memory.timing.tRCDD=3", ["--set: memory.timing.tRCDD=3", "mean tRCD?"]),
        ("memory.organization.channels=3", ["--set: memory.organization.channels=3", "power of two"]),
        ("memory.constraints=[[bank, ACT, PRE]]", ["--set: memory.constraints[0]", "scope, previous, next, latency"]),
        ("memory.speed=[1, 2]", ["--set: memory.speed=[1, 2]: no such speed grade"]),
        ("workload.kind=[a]", ["--set: workload.kind=['a']: not an option"]),
        ("include=a.yaml", ["--set include='a.yaml'"]),
        ("seed", ["--set 'seed'", "key=value"]),
        ("a..b=1", ["--set 'a..b'", "empty key"]),
        ("seed=[1", ["--set seed='[1'", "line 1"]),
        ("workload.requests=nowhere.csv", ["--set: workload.requests='nowhere.csv'", "no such file"]),
        (
            "parallel.tensor=3",
            ["--set: parallel.tensor=3", "model.heads=32", "allowed: 1, 2, 4, 8, 16, 32"],
        ),
        ("parallel.pipeline=5", ["--set: parallel.pipeline=5", "model.layers=32"]),
        ("model.kv_heads=2", ["parallel.tensor=4", "model.kv_heads=2"]),
        ("model.kv_heads=12", ["--set: model.kv_heads=12", "model.heads=32"]),
        ("memory=hbm2", ["attention_on='pim'", "no PIM"]),
        ("workload.context_tokens=4096", ["--set: workload.context_tokens=4096", "model.max_positions=2048"]),
        ("workload.warmup.max_context_tokens=4096", ["--set: workload.warmup", "model.max_positions=2048"]),
    ],
)
def test_bad_override_is_refused_in_one_line_that_helps(override: str, parts: list[str]) -> None:
    text = message("neupims", [override])
    assert all(part in text for part in parts), text


def test_lengths_are_stated_once(tmp_path: Path) -> None:
    (tmp_path / "batch.csv").write_text("seq_len\n100\n")
    overrides = ["workload.context_tokens=100", f"workload.requests={tmp_path / 'batch.csv'}"]
    assert "both state lengths; keep one of them" in message("neupims", overrides)


def test_batch_smaller_than_the_pipeline_is_refused() -> None:
    assert "workload.batch_size=1" in message("neupims", ["workload.batch_size=1", "parallel.pipeline=2"])


@pytest.mark.parametrize("interleaving", ["lockstep", "dataflow"])
def test_interleaving_needs_attention_on_pim(interleaving: str) -> None:
    text = message("npu_only", [f"scheduling.interleaving={interleaving}"])
    assert "needs attention_on='pim'" in text
    load_config("npu_only", ["scheduling.interleaving=auto"])


def test_check_config_refuses_without_files() -> None:
    config = load_config("neupims")
    check_config(config)
    bad = config.model_copy(update={"parallel": config.parallel.model_copy(update={"tensor": 3})})
    with pytest.raises(InputError, match=r"^parallel.tensor=3"):
        check_config(bad)


def test_all_errors_are_told(tmp_path: Path) -> None:
    assert message("neupims", ["clock_ghz=0", "seed=-1"]) == (
        "--set: 2 errors: (1) seed=-1: must be greater than or equal to 0 (2) clock_ghz=0: must be greater than or equal to 0.001"
    )
    path = write(tmp_path / "mine.yaml", "include: neupims\nclock_ghz: 0\n")
    assert message(path, {"seed": -1}).startswith(
        f"2 errors: (1) overrides: seed=-1: must be greater than or equal to 0 (2) {path}: "
    )
    text = message("neupims", {f"modle{number}": 1 for number in range(20)})
    assert text.startswith("overrides: 20 errors: (1) modle0=1: unknown key; allowed: ")
    assert text.endswith("did you mean model? (and 15 more)")
    text = message("neupims", {"parallel.tensor": 5, "parallel.pipeline": 7})
    assert all(
        part in text for part in ("(1) parallel.tensor=5 does not divide", "parallel.pipeline=7 does not divide")
    )


@pytest.mark.parametrize(
    ("file", "overrides", "start"),
    [
        ("neupims", {"model.kv_heads": 2}, "overrides: parallel.tensor=4 does not divide model.kv_heads=2"),
        ("neupims", {"memory": "hbm2"}, "overrides: attention_on='pim', but memory 'HBM2 8 Gb x128' has no PIM"),
        ("neupims", ["memory=hbm2", "seed=1"], "--set: attention_on='pim', but memory 'HBM2 8 Gb x128' has no PIM"),
        ("neupims", ["memory=./odd.yaml"], "odd.yaml: organization.channels=3 must be a power of two"),
        ("neupims", ["memory=./odd.yaml", "memory.organization.rows=64"], "odd.yaml: organization.channels=3 must be"),
        ("mine.yaml", {"seed": 1}, "mine.yaml: attention_on='pim', but memory 'HBM2 8 Gb x128' has no PIM"),
        ("mine.yaml", {"workload.batch_size": 0}, "overrides: workload.batch_size=0: must be greater than 0"),
        ("neupims", {"workload.kind": "images"}, "overrides: workload.kind='images': "),
        ("neupims", ["model.family=vit"], "--set: model.family='vit': "),
        ("neupims", {"gpu.name": "x"}, "overrides: 4 errors: (1) gpu.peak_flops is missing"),
        ("npu_only", {"memory.power": None, "memory.power.vdd_v": 2}, "overrides: 6 errors: (1) memory.power.idd0_ma is missing"),
        ("mine.yaml", {"workload.requests": "x", "workload.batch_size": 0}, "overrides: workload.batch_size=0"),
        ("neupims", {"model.heads": 5}, "overrides: model.d_model=4096 is not a multiple of model.heads=5"),
    ],
)  # fmt: skip
def test_whoever_made_the_choice_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, overrides: Any, start: str
) -> None:
    """Of sources that contradict each other the one that the user wrote, not the shipped file, and not another override."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "odd.yaml", "base: hbm2_pim_dual\norganization: {channels: 3}\n")
    write(tmp_path / "mine.yaml", "include: neupims\nmemory: hbm2\n")
    assert message(file, overrides).startswith(start)


def test_a_kind_given_to_a_file_of_another_names_those_of_this_kind() -> None:
    text = message("neupims", {"workload.kind": "images"})
    assert "sharegpt.yaml is of another kind; name a workload of this one (images), or give a whole table" in text


class Stranger:
    pass


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ((3,), "3: must be the name of a file or of a shipped one, not a int"),
        ((None,), "None: must be the name of a file"),
        (("x" * 100_000,), "xxxxx"),
        (("a\0b",), "a"),
        (("~nobody/x.yaml",), "~nobody/x.yaml: no such file"),
        (("neupims", 3), "overrides=3: must be a mapping such as"),
        (("neupims", "seed=1"), "overrides='seed=1': must be a mapping such as"),
        (("neupims", None), "overrides=None: must be a mapping"),
        (("neupims", [3]), "--set 3: write key=value"),
        (("neupims", {3: 4}), "overrides: key 3: must be text"),
        (("neupims", {"seed": Stranger()}), "overrides: seed=<"),
        (("neupims", {"memory": {"timing": {1, 2}}}), "overrides: memory.timing={1, 2}: a set; allowed: numbers"),
        (("neupims", {"seed": 1 + 2j}), "overrides: seed=(1+2j): a complex"),
        (("neupims", {".".join("a" * 50): 1}), "overrides 'a.a."),
        (("neupims", {"seed": [[[[]]]]}), "overrides: seed=[[[[]]]]: must be a valid integer"),
    ],
)  # fmt: skip
def test_values_of_a_wrong_type_are_refused_as_every_bad_input(arguments: tuple[Any, ...], start: str) -> None:
    assert message(*arguments).startswith(start)


def test_sections_of_a_wrong_type_are_refused() -> None:
    for arguments in (
        ("memori", "hbm2"),
        (3, "hbm2"),
        ("memory", 3),
        ("memory", None),
        ("memory", "hbm2", 3),
        ("memory", "hbm2", "physical", 3),
    ):
        with pytest.raises(InputError):
            load_section(*arguments)
    with pytest.raises(InputError, match="did you mean memory"):
        load_section("memori", "hbm2")
    for wrong in (3, None, b"x"):
        with pytest.raises(InputError, match="must be the name of"):
            check_file(wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="must be the name of a sweep file"):
            read_sweep(wrong)  # type: ignore[arg-type]


def test_values_that_contain_themselves_are_refused() -> None:
    tree: dict[str, Any] = {}
    tree["model"] = tree
    assert "more than 40 levels" in message("neupims", {"model": tree})


def test_numbers_of_numpy_and_paths_and_sections_are_values(tmp_path: Path) -> None:
    table = write(tmp_path / "table.yaml", "base: hbm2_pim_dual\n")
    whole = load_config("neupims", {"workload.batch_size": np.int64(64), "clock_ghz": np.float32(2.0), "memory": table})
    assert (whole.workload.batch_size, whole.clock_ghz, whole.memory.name) == (64, 2.0, "table")
    assert load_config("neupims", {"memory": whole.memory}).memory == whole.memory


@pytest.mark.parametrize("given", ["neupims", None, {}])
def test_simulate_takes_configurations_only(given: Any) -> None:
    with pytest.raises(InputError, match=r"must be a Config, as load_config returns it"):
        simulate(given)


def test_error_names_the_file_that_states_the_value(tmp_path: Path) -> None:
    write(tmp_path / "part.yaml", "scheduling: {barrier: none}\n")
    path = write(tmp_path / "mine.yaml", "include: [neupims, part]\nseed: 3\n")
    assert message(path).startswith(f"{tmp_path / 'part.yaml'}: scheduling.barrier='none': not an option; allowed: op")


def test_error_in_a_named_file_gives_the_path_inside_that_file(tmp_path: Path) -> None:
    path = write(tmp_path / "model.yaml", "base: gpt3-7b\nlayerz: 2\n")
    text = message("neupims", {"model": str(path)})
    assert text.startswith(f"{path}: layerz=2: unknown key")
    assert text.endswith("did you mean layers?")


def test_error_in_a_constraint_row_names_the_file_of_the_row(tmp_path: Path) -> None:
    path = write(tmp_path / "variant.yaml", "base: hbm2\nconstraints:\n  - [bnak, ACT, PRE, 99]\n")
    text = message("npu_only", {"memory": str(path)})
    assert text.startswith(f"{path}: constraints[")
    assert "did you mean bank?" in text


def test_missing_key_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.yaml", "layers: 2\nheads: 2\nd_model: 256\nvocabulary: 100\n")
    assert message("neupims", {"model": str(path)}) == f"{path}: d_ff is missing"
    path = write(tmp_path / "empty.yaml", "")
    assert (
        message(path)
        == f"{path}: 4 errors: (1) npu is missing (2) memory is missing (3) model is missing (4) workload is missing"
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("include: nowhere\n", ["include='nowhere'", "no such file"]),
        ("include: mine.yaml\n", ["circle"]),
        ("include: {a: 1}\n", ["include=", "list of file names"]),
        ("seed: [1\n", ["line 1"]),
        ("seed: 1\nseed: 2\n", ["line 2", "'seed' is given twice"]),
        ("- 1\n", ["mapping"]),
        ("include: neupims\npreset: [a]\n", ["preset=['a']"]),
        ("include: neupims\nmemory: {base: 3}\n", ["memory.base=3"]),
    ],
)
def test_bad_file_is_refused(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = write(tmp_path / "mine.yaml", text)
    refusal = message(path)
    assert refusal.startswith(str(path))
    assert all(part in refusal for part in parts), refusal


def test_files_that_build_on_others_have_bounds(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / f"a{number}.yaml", f"include: a{number + 1}.yaml\n")
        write(tmp_path / f"b{number}.yaml", f"base: ./b{number + 1}.yaml\n")
        write(tmp_path / f"c{number}.yaml", f"include: [c{number + 1}.yaml, c{number + 1}.yaml]\n")
    write(tmp_path / "c8.yaml", "include: neupims\n")
    assert "a20.yaml: more than 20 files include one another" in message(tmp_path / "a0.yaml")
    assert "b20.yaml: more than 20 files are the base" in message("neupims", {"model": str(tmp_path / "b0.yaml")})
    assert "include leads to more than 100 files" in message(tmp_path / "c0.yaml"), "2^8 times c8"
    assert "include leads to more than 100 files" in message(
        write(tmp_path / "d.yaml", f"include: {['neupims'] * 1000}\n")
    )


def test_base_in_a_circle_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "base: ./b.yaml\n")
    write(tmp_path / "b.yaml", "base: ./a.yaml\n")
    assert "circle" in message("neupims", {"model": str(path)})


@pytest.mark.parametrize(("name", "near"), [("neupimz", "neupims"), ("configs/systems/npu_onli.yaml", "npu_only")])
def test_unknown_system_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    assert message(name).endswith(f"did you mean {near}?")


@pytest.mark.parametrize(
    ("presets", "part"),
    [
        ("{asplos: {}}", "presets.asplos: no such preset"),
        ("{asplos24: {contoller: {}}}", "presets.asplos24.contoller: unknown key"),
        ("{asplos24: 3}", "presets.asplos24=3"),
        ("3", "presets=3"),
    ],
)
def test_bad_preset_of_a_memory_is_refused(tmp_path: Path, presets: str, part: str) -> None:
    path = write(tmp_path / "memory/mine.yaml", f"base: hbm2\npresets: {presets}\n")
    with pytest.raises(InputError) as caught:
        check_file(path)
    assert str(caught.value).startswith(f"{path}: {part}")


def test_kind_of_a_file_elsewhere_is_told_from_its_keys(tmp_path: Path) -> None:
    check_file(write(tmp_path / "a.yaml", "base: gpt3-7b\nlayers: 2\n"))
    check_file(write(tmp_path / "b.yaml", "base: hbm2\nrow_buffers: none\ntiming: {}\n"))
    check_file(write(tmp_path / "c.yaml", "include: neupims\nmodel: {layers: 2}\n"))
    with pytest.raises(InputError, match=r"heads='x'"):
        check_file(write(tmp_path / "d.yaml", "base: gpt3-7b\nlayers: 2\nheads: x\n"))


def test_preset_outside_the_configs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"configs/presets folder only"):
        check_file(write(tmp_path / "presets/physical.yaml", ""))


def test_unknown_override_of_a_section_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--set: controller.row_hit_cup=1: unknown key; .*mean row_hit_cap"):
        load_memory("hbm2", overrides=["controller.row_hit_cup=1"])
    with pytest.raises(InputError, match=r"^memory='hbm3x'"):
        load_section("memory", "hbm3x")


# --- identity ---


OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**32),
        "preset": st.sampled_from(PRESETS),
        "model": st.sampled_from(["gpt3-7b", "gpt3-13b", "llama-3-8b"]),
        "model.layers": st.sampled_from([4, 8, 16]),
        "workload": st.sampled_from(["sharegpt", "alpaca"]),
        "workload.batch_size": st.integers(4, 1024),
        "parallel.tensor": st.sampled_from([1, 2, 4]),
        "scheduling.barrier": st.sampled_from(["operator", "request"]),
        "npu.scratchpad_bytes": st.sampled_from(["1 MiB", "32 MB", 2**20]),
        "memory.controller.row_hit_cap": st.integers(1, 64),
    },
)


@settings(max_examples=30)
@given(system=st.sampled_from(SYSTEMS), overrides=OVERRIDES)
def test_dump_loads_as_the_same_configuration(
    tmp_path_factory: pytest.TempPathFactory, system: str, overrides: dict[str, Any]
) -> None:
    config = load_config(system, overrides)
    path = write(tmp_path_factory.mktemp("dump") / "config.yaml", dump_config(config))
    again = load_config(path)
    assert again == config
    assert config_hash(again) == config_hash(config)
    assert Config.model_validate(yaml.safe_load(dump_config(config))) == config


@settings(max_examples=30)
@given(overrides=OVERRIDES, data=st.data())
def test_hash_does_not_depend_on_the_order_or_spelling_of_overrides(
    overrides: dict[str, Any], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(list(overrides)))
    spelled = [f"{key}={overrides[key]}" for key in shuffled]
    assert config_hash(load_config("neupims", overrides)) == config_hash(load_config("neupims", spelled))


def test_hash_tells_configurations_apart() -> None:
    assert config_hash(load_config("neupims")) != config_hash(load_config("neupims", ["seed=1"]))


TREES = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(
    below=st.dictionaries(st.sampled_from("abc"), TREES),
    above=st.dictionaries(st.sampled_from("abc"), TREES),
)
def test_merge_keeps_everything_above_and_loses_nothing_below_without_need(
    below: dict[str, Any], above: dict[str, Any]
) -> None:
    merged = merge(below, above)
    assert merge(merged, above) == merged
    assert merged.keys() == below.keys() | above.keys()
    assert merge(below, {}) == below
    assert merge({}, above) == above


# --- timings of a memory table ---


@pytest.mark.parametrize(
    ("written", "clock_ghz", "cycles"),
    [
        ("14 ns", 1.0, 14),
        ("13.75 ns", 1.2, 17),  # 16.5: rounded up
        ("3.9 us", 1.0, 3900),
        ("14 ns", 0.5, 7),
        ("tRAS + tRP", 1.0, 48),
        ("max(4, burst)", 1.0, 4),
        ("2 * tRCD - 1", 1.0, 27),
        (30, 1.0, 30),
    ],
)
def test_timings_are_cycles_times_or_expressions(written: object, clock_ghz: float, cycles: int) -> None:
    memory = load_memory("hbm2", overrides={"timing.tFAW": written, "organization.clock_ghz": clock_ghz})
    assert memory.timing["tFAW"] == cycles


def test_derived_timings_follow_what_they_are_derived_from() -> None:
    memory = load_memory("hbm2", overrides={"timing.tRRD_L": "tRRD_S + 2", "timing.tRRD_S": "tCCD_L + 1"})
    assert (memory.timing["tRRD_S"], memory.timing["tRRD_L"]) == (3, 5)


@pytest.mark.parametrize(
    ("timing", "message"),
    [
        ({"tRP": "tRAS", "tRAS": "tRP + 1"}, "goes in a circle: tRP -> tRAS -> tRP"),
        ({"tRP": "tRP"}, "goes in a circle: tRP -> tRP"),
        ({"tRP": "tRCX"}, "unknown timing 'tRCX'; .*did you mean tR"),
        ({"tRP": "tRCD - 99"}, "timing.tRP=-85: must be greater than or equal to 0"),
        ({"tRP": -1}, "timing.tRP=-1: must be greater than or equal to 0"),
        ({"tRP": 13.5}, "timing.tRP=13.5: must be a valid integer"),
        ({"tRP": "13 cycles"}, "timing.tRP='13 cycles': '13 cycles' is not an expression"),
        ({"tRP": "open('x')"}, "is not an expression of timing parameters"),
        ({"tRP": "tRCD ** 2"}, "is not an expression of timing parameters"),
        ({"tRP": "tRCD // 0"}, "is not an expression of timing parameters"),
        ({"tRP": "tRCD + 1", "tRCD": [1]}, r"refers to \[1\], which is no number"),
        ({"tRP": "tRCD + 1", "tRCD": True}, "refers to True, which is no number"),
        ({"tRP": "*".join(["9999"] * 40)}, "yields more than 1,099,511,627,776"),
        ({"tRP": "(" * 150 + "1"}, "is not an expression"),
        ({"tRP": "-" * 199 + "1"}, "is not an expression"),
        ({"tRP": "1 + " * 100_000 + "1"}, "has 400,001 characters; allowed: up to 200"),
    ],
)
def test_a_bad_timing_is_one_clear_line(timing: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_memory("hbm2", overrides={f"timing.{name}": value for name, value in timing.items()})
    assert "\n" not in str(caught.value)


def test_a_speed_grade_applies_between_its_file_and_what_builds_on_it(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text(
        "base: hbm2\nname: part\nspeed: slow\ntiming: {tRP: 11}\n"
        "speeds:\n  slow: {timing: {CL: 20}}\n  fast: {organization: {clock_ghz: 2.0}, timing: {CL: 9, tRP: 9, tRCD: 9}}\n"
    )
    (tmp_path / "built.yaml").write_text("base: part.yaml\nname: built\nspeed: fast\ntiming: {tRCD: 5}\n")
    slow, fast = load_memory(tmp_path / "part.yaml"), load_memory(tmp_path / "built.yaml")
    assert (slow.timing["CL"], slow.timing["tRP"], slow.organization.clock_ghz) == (20, 11, 1.0)
    assert (fast.timing["CL"], fast.timing["tRP"], fast.timing["tRCD"], fast.organization.clock_ghz) == (9, 9, 5, 2.0)
    chosen = load_memory(tmp_path / "part.yaml", overrides={"speed": "fast", "timing.CL": 8})
    assert (chosen.timing["CL"], chosen.timing["tRP"]) == (8, 9)
    with pytest.raises(InputError, match=r"speed='fats': no such speed grade; .*did you mean fast"):
        load_memory(tmp_path / "part.yaml", overrides={"speed": "fats"})


@pytest.mark.parametrize(
    ("timing", "told"),
    [
        ({f"t{n}": f"max(t{n + 1} + 1, t{n + 1}, t{n + 1} - 1)" for n in range(30)} | {"t30": 1}, 31),
        ({f"t{n}": f"t{n + 1} * t{n + 1}" for n in range(20)} | {"t20": 9}, "yields more than 1,099,511,627,776"),
        ({f"t{n}": f"t{n + 1}" for n in range(200)} | {"t200": 1}, "leads through more than 32 other parameters"),
    ],
)
def test_timings_that_lead_to_others_are_computed_once_each(tmp_path: Path, timing: dict[str, Any], told: Any) -> None:
    path = write(tmp_path / "mine.yaml", "base: hbm2\n" + yaml_text.dump({"timing": timing}))
    start = time.perf_counter()
    if isinstance(told, int):
        assert load_memory(path).timing["t0"] == told
    else:
        with pytest.raises(InputError, match=rf"mine\.yaml: timing\.t\d+=.*{told}"):
            load_memory(path)
    assert time.perf_counter() - start < 3


# --- bounds ---


def numbers_of(section: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Every field of the schema that holds numbers, below a section: name, and the type with its bounds."""
    for name, field in section.model_fields.items():
        annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        leaves = list(leaf_types(field.annotation))
        if int in leaves or float in leaves:
            yield f"{section.__name__}.{name}", annotation
        for inner in leaves:
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from numbers_of(inner)


def leaf_types(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from leaf_types(get_args(annotation)[0])
    elif get_args(annotation) and get_origin(annotation) is not Literal:
        for argument in get_args(annotation):
            yield from leaf_types(argument)
    else:
        yield annotation


NUMBERS = dict(numbers_of(Config))


def test_the_schema_has_many_numbers() -> None:
    assert len(NUMBERS) > 150
    assert {
        "ModelConfig.layers",
        "Organization.rows",
        "SchedulerConfig.max_num_seqs",
        "GpuPeakConfig.float16",
    } <= NUMBERS.keys()


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_of_the_schema_is_without_bounds(name: str) -> None:
    adapter = TypeAdapter(NUMBERS[name])
    as_list = {"ResnetConfig.blocks": 4}.get(name)
    values = [math.nan, math.inf, -math.inf, -1, 1e30, 10**30, True, "1e999"]
    if name.rpartition(".")[2] not in ("image_size", "scratchpad_bytes", "accumulator_bytes", "capacity_bytes"):
        values += ["1", "1e3"]  # sizes may be text
    for value in values:
        for wrong in ([value] * as_list,) if as_list else (value, {"tRP": value}):
            with pytest.raises(ValidationError):
                adapter.validate_python(wrong)


def test_whole_numbers_may_be_written_as_floats() -> None:
    assert load_config("neupims", ["workload.batch_size=1e2"]).workload.batch_size == 100
    assert load_config("neupims", ["clock_ghz=2"]).clock_ghz == 2.0
    for wrong in (
        "1.5",
        "1e17",
        "true",
        "'64'",
        "1_000",
        "1:30",
    ):
        assert "must be a valid integer" in message("neupims", [f"workload.batch_size={wrong}"])


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["hbm2", "neupims", "x:y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abct.", max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "model", "model.heads", "model.base", "memory", "memory.speed", "memory.timing", "memory.timing.tRP", "memory.constraints",
        "memory.presets", "memory.speeds", "memory.organization", "npu.scratchpad_bytes", "workload", "workload.kind",
        "workload.image_size", "parallel.link", "gpu", "gpu.peak_flops", "preset", "system", "include", "seed", "serving.requests",
    ]
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(overrides=st.dictionaries(KEYS, ANY, min_size=1, max_size=3))
@pytest.mark.filterwarnings("ignore")
def test_any_values_make_a_configuration_or_one_line(overrides: dict[str, Any]) -> None:
    try:
        config = load_config("neupims", overrides)
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017
        assert len(str(error)) <= MOST_MESSAGE  # noqa: PT017
    else:
        assert Config.model_validate_json(config.model_dump_json()) == config
