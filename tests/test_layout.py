"""Rules of the repository that no tool checks: where code lies, how long files are, that the README works."""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("platform/headway", "features", "training", "serve_apps", "monitoring", "benchmarks", "tests")
APART = (ROOT / "tests" / "clients", ROOT / "benchmarks" / "peers" / "apart")
"""Programs of other environments."""
SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if not any(path.is_relative_to(place) for place in APART)
)
PINS = re.compile(r"^([A-Za-z0-9._-]+)(\[[a-z0-9,_-]+\])?==(\S+)")


def test_platform_is_a_source_root_and_not_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    script = "import platform, headway; print(platform.python_version())"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("3.")


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert {str(path): length for path, length in lengths.items() if length > 500} == {}
    assert statistics.median(lengths.values()) <= 150


def test_every_module_of_the_engine_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.is_relative_to(ROOT / "platform") and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_tests_are_packages() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_public_names_load_on_demand() -> None:
    import headway

    for name in dir(headway):
        assert getattr(headway, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = headway.nothing
    script = "import headway, sys; print([n for n in ('numpy', 'ray', 'pyarrow') if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def lock() -> dict[NormalizedName, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [match for line in lines if line and not line.startswith("#") and (match := PINS.match(line))]
    assert len(found) == len([line for line in lines if line and not line.startswith("#")])
    return {canonicalize_name(match[1]): match[3] for match in found}


def test_the_lock_pins_every_dependency_within_its_bounds() -> None:
    pins = lock()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for item in declared:
        requirement = Requirement(item)
        name = canonicalize_name(requirement.name)
        assert name in pins, item
        assert requirement.specifier.contains(pins[name]), item


def test_what_is_installed_is_what_is_locked() -> None:
    installed = {canonicalize_name(item.metadata["Name"]): item.version for item in distributions()}
    pins = lock()
    assert {
        name: installed[name]
        for name, version in pins.items()
        if name in installed and installed[name].partition("+")[0] != version  # "+cpu": which build it is
    } == {}
    assert requires("headway"), "the editable install is older than pyproject.toml"


def test_every_import_is_a_direct_dependency() -> None:
    names = {
        "yaml": "pyyaml", "jwt": "pyjwt", "sklearn": "scikit-learn", "google": "protobuf", "grpc": "grpcio",
        "xdist": "pytest-xdist", "opentelemetry": "opentelemetry-proto",
    }  # fmt: skip
    text = (ROOT / "requirements.lock").read_text()
    direct = text[: text.index("# --- needed by the above")]
    known = {canonicalize_name(match[1]) for line in direct.splitlines() if (match := PINS.match(line))}
    local = {Path(folder).name for folder in FOLDERS}
    missing: dict[str, str] = {}
    for path in SOURCES:
        for module in imports(path):
            name = canonicalize_name(names.get(module, module))
            if module not in sys.stdlib_module_names and module not in local and name not in known:
                missing[module] = str(path.relative_to(ROOT))
    assert missing == {}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_readmes_python_runs() -> None:
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=ROOT, check=True, timeout=120)


def test_the_readmes_commands_exist() -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    targets = (ROOT / "Makefile").read_text()
    for line in (line.strip() for block in blocks("sh") for line in block.splitlines()):
        words = line.split("#")[0].split()
        if words[:1] == ["make"]:
            assert all(f"\n{target}:" in targets for target in words[1:] if "=" not in target), line
        elif words[:1] == ["headway"]:
            command = [word for word in words if not word.startswith("-")][1:3]
            shown = [run_help(command[:count], environment) for count in (2, 1)]
            assert 0 in shown, line


def run_help(command: list[str], environment: dict[str, str]) -> int:
    return subprocess.run(
        ["headway", *command, "--help"], cwd=ROOT, env=environment, capture_output=True, check=False, timeout=60
    ).returncode
