"""`python -m benchmarks NAME --json FILE`: run one benchmark, print its bars, exit 1 when one falls short."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

import benchmarks
from benchmarks import page
from benchmarks.harness import Report, print_bars


def names() -> list[str]:
    """Return the benchmarks: modules and packages of this folder that have a `benchmark` function."""
    found = []
    for info in pkgutil.iter_modules(benchmarks.__path__):
        if not info.name.startswith("_"):
            file = f"{info.name}/__init__.py" if info.ispkg else f"{info.name}.py"
            if "\ndef benchmark(" in Path(benchmarks.__path__[0], file).read_text():
                found.append(info.name)
    return sorted(found)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=names())
    parser.add_argument("--json", type=Path, default=None, help="where the result is written")
    parser.add_argument("--quick", action="store_true", help="short runs: to see that it works, not to quote")
    options = parser.parse_args(arguments)
    report: Report = importlib.import_module(f"benchmarks.{options.name}").benchmark(quick=options.quick)
    if options.json is not None:
        report.write(options.json)
        if options.json.resolve().parent == page.RESULTS:
            page.write()
    print_bars(report)
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
