"""The long form: ``make fuzz``, or ``cd tests && python -m fuzz``. Prints what went wrong, and counts; exit code 1 if anything did."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shlex
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from fuzz.execution import BAD, GOOD, Case, Outcome, Result, execute, warm_up
from fuzz.fields import field_cases, pair_cases
from fuzz.files import file_cases
from fuzz.options import option_cases

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fuzzing.md"
_MARK = "<!-- counts -->"
Counts = Mapping[str, Counter[Outcome]]


def cases(seed: int, share: float) -> Iterator[Case]:
    """What the long form runs; of each kind a share, chosen by the seed."""
    draw = random.Random(seed)
    for kind in (field_cases(), option_cases(), islice(pair_cases(seed), 6_000), file_cases(seed)):
        for case in kind:
            if draw.random() < share:
                yield case


def run(chosen: Iterable[Case], workers: int) -> Iterator[Result]:
    """The results of cases, as they come."""
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder))
        if workers == 1:
            yield from map(execute, chosen)
            return
        with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
            yield from pool.map(execute, chosen)


def table(counts: Counts) -> str:
    """The counts as Markdown: a row per area."""
    outcomes = (*GOOD, *BAD)
    lines = [f"| cases | {' | '.join(outcomes)} |", f"|---{'|---:' * len(outcomes)}|"]
    total: Counter[Outcome] = Counter()
    for area, found in sorted(counts.items()):
        total += found
        lines.append(f"| {area} | {' | '.join(f'{found[outcome]:,}' for outcome in outcomes)} |")
    lines.append(f"| **{sum(total.values()):,}** | {' | '.join(f'**{total[outcome]:,}**' for outcome in outcomes)} |")
    return "\n".join(lines)


def main() -> int:
    """Run the cases; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.25, help="of the cases, chosen by the seed; 1: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--area", default="", help="only areas that begin so, e.g. 'files'")
    parser.add_argument("--page", action="store_true", help=f"write the counts into {PAGE.name}")
    options = parser.parse_args()
    chosen = [case for case in cases(options.seed, options.share) if case.area.startswith(options.area)]
    print(f"{len(chosen):,} cases", flush=True)
    counts: defaultdict[str, Counter[Outcome]] = defaultdict(Counter)
    bad = 0
    for number, result in enumerate(run(chosen, options.workers), start=1):
        counts[result.case.area.replace(",", ":")][result.outcome] += 1
        if result.outcome in BAD:
            bad += 1
            call = shlex.join(["neupims-sim", *(argument[:200] for argument in result.case.arguments)])
            print(f"--- {result.outcome}, {result.seconds:.1f} s: {result.case.area}: {result.case.name}\n{call}")
            print(result.message[-600:], flush=True)
        if number % 500 == 0:
            print(f"{number:,} of {len(chosen):,}, {bad} bad", file=sys.stderr, flush=True)
    print(table(counts))
    if options.page:
        text = PAGE.read_text(encoding="utf-8").partition(_MARK)[0]
        PAGE.write_text(f"{text}{_MARK}\n\n{table(counts)}\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
