"""The package runs on Linux, macOS and Windows: traps are found, and fallbacks are tried."""

from __future__ import annotations

import ast
import ctypes
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mypy
import pytest
import torch

from glassworld.bench.cold_start import _peak_bytes
from glassworld.bench.peak_rates import load_average
from glassworld.bench.play import check
from glassworld.cli import main
from glassworld.engine.acceleration.compile import _make_private
from glassworld.engine.runtime import memory
from glassworld.engine.runtime.device import Precision
from glassworld.errors import InputError
from glassworld.info import collect_info
from glassworld.play.block_scheduler import _trim_memory
from glassworld.play.downloads import PREFIX, DownloadStore, ServerFolder
from glassworld.play.limits import decoder
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.traces import CpuTrace, write

STUBS = Path(mypy.__file__).parent / "typeshed" / "stdlib"
"""The standard library's signatures, which say on which systems a name exists."""

OTHER_SYSTEMS = ("win32", "darwin")

FILES = [*sorted((ROOT / "glassworld").rglob("*.py")), *sorted((ROOT / "examples").glob("*.py"))]

WITH_FALLBACK = {
    "bench/cold_start.py": {"/proc/self/status", "resource.RUSAGE_SELF", "resource.getrusage"},
    "bench/gpu/check.py": {"os.killpg", "process_group=", "signal.SIGKILL"},
    "bench/peak_rates.py": {"os.getloadavg"},
    "bench/play/attack.py": {"os.getloadavg"},  # refuses to run without /proc
    "bench/play/check.py": {"/proc"},
    "engine/acceleration/compile.py": {"os.getuid"},
    "engine/checkpoint/save.py": {".rename()"},  # to a path where nothing is
    "engine/runtime/cores.py": {"/proc/stat", "os.sched_getaffinity", "os.sysconf"},
    "engine/runtime/memory.py": {"/proc/meminfo", "ctypes.CDLL"},
    "engine/runtime/threads.py": {"os.register_at_fork"},
    "info.py": {"/proc/cpuinfo", "os.getloadavg", "os.sched_getaffinity"},
    "play/block_scheduler.py": {"ctypes.CDLL", "malloc_trim"},
    "play/traces/block_capture.py": {"os.WNOHANG", "os.fork", "signal.SIGKILL"},
    "play/downloads.py": {"fcntl.LOCK_EX", "fcntl.LOCK_NB", "fcntl.flock", "os.getuid"},
    "play/limits/decoder.py": {
        "os.nice",
        "resource.RLIMIT_AS",
        "resource.RLIMIT_CPU",
        "resource.setrlimit",
    },
    "serve/worker.py": {"/proc/self/statm", "os.sysconf"},
    "profiling/metadata.py": {"/proc/cpuinfo"},
}
"""By file: what only some systems have, used where the code knows what to do on the others."""


# What exists where


def _holds(test: ast.expr, platform: str) -> bool:
    """Return whether a stub's condition holds on a system, in the Python of this test."""
    facts = {"platform": platform, "version_info": sys.version_info, "TYPE_CHECKING": True}
    code = compile(ast.Expression(test), "<stub>", "eval")
    return bool(eval(code, {"sys": SimpleNamespace(**facts), "TYPE_CHECKING": True}))


def _defined(body: list[ast.stmt], platform: str) -> Iterator[str]:
    """Yield the names that the statements of a stub define on a system."""
    for node in body:
        match node:
            case ast.If():
                holds = _holds(node.test, platform)
                yield from _defined(node.body if holds else node.orelse, platform)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in node.names)


@cache
def _names(module: str, platform: str) -> frozenset[str]:
    """Return the names that a module of the standard library has on a system."""
    stub = STUBS.joinpath(*module.split("."))
    path = stub / "__init__.pyi" if stub.is_dir() else stub.with_suffix(".pyi")
    if not path.is_file():
        return frozenset()
    return frozenset(_defined(ast.parse(path.read_bytes()).body, platform))


def _is_missing_somewhere(module: str, name: str) -> bool:
    everywhere = [name in _names(module, platform) for platform in OTHER_SYSTEMS]
    return name in _names(module, "linux") and not all(everywhere)


def _partial_names(nodes: list[ast.AST]) -> Iterator[str]:
    """Yield the names of the standard library in a file that not every system has."""
    modules = dict[str, str]()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if _is_missing_somewhere(node.module, alias.name):
                    yield f"{node.module}.{alias.name}"
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id, "")
            if module and _is_missing_somewhere(module, node.attr):
                yield f"{module}.{node.attr}"


# What behaves differently

SYSTEM_PATH = re.compile(r"/(proc|sys|dev|tmp|etc|usr|var)(/|$)")
TEXT_MODE = re.compile(r"[rwax]\+?t?")
FORMATS_OF_GLIBC = re.compile(r"%-?[-sPGk]")

DIFFERENT_CALLS = {
    "rename": ".rename()",  # Windows refuses an existing target: use replace
    "NamedTemporaryFile": "NamedTemporaryFile()",  # Windows cannot open it a second time
    "guess_type": "mimetypes.guess_type()",  # asks the registry of Windows
    "add_signal_handler": "add_signal_handler()",  # the loop of Windows has none
    "add_reader": "add_reader()",
    "add_writer": "add_writer()",
    "malloc_trim": "malloc_trim",
    "CDLL": "ctypes.CDLL",
}

DIFFERENT_KEYWORDS = {"preexec_fn", "start_new_session", "process_group", "dir_fd", "shell"}


def _opens_text_without_encoding(call: ast.Call) -> bool:
    """Return whether a call reads or writes text in the system's own encoding."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    function, arguments = call.func, call.args
    if "encoding" in keywords or None in keywords:
        return False
    if isinstance(function, ast.Attribute) and function.attr in ("read_text", "write_text"):
        return len(arguments) < (1 if function.attr == "read_text" else 2)
    modes = [*arguments, keywords.get("mode")]
    texts = [node.value for node in modes if isinstance(node, ast.Constant)]
    text_mode = any(isinstance(text, str) and TEXT_MODE.fullmatch(text) for text in texts)
    if isinstance(function, ast.Name) and function.id == "open":
        return text_mode or len(arguments) == 1
    if isinstance(function, ast.Attribute) and function.attr == "TemporaryFile":
        return text_mode
    if isinstance(function, ast.Attribute) and function.attr == "open":
        first = arguments[0] if arguments else keywords.get("mode")
        return (not arguments and not keywords) or (isinstance(first, ast.Constant) and text_mode)
    return False


def _different_behavior(nodes: list[ast.AST]) -> Iterator[str]:
    """Yield the calls and constants of a file that mean something else on another system."""
    documentation = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if SYSTEM_PATH.match(node.value) and node not in documentation:
                yield node.value
        elif isinstance(node, ast.Call):
            yield from _different_call(node)


def _different_call(call: ast.Call) -> Iterator[str]:
    function = call.func
    name = getattr(function, "attr", None) or getattr(function, "id", "")
    if name in DIFFERENT_CALLS:
        yield DIFFERENT_CALLS[name]
    if name == "strftime" and FORMATS_OF_GLIBC.search(ast.unparse(call)):
        yield "strftime()"
    if _opens_text_without_encoding(call):
        yield f"{name}() without encoding"
    for keyword in call.keywords:
        if keyword.arg in DIFFERENT_KEYWORDS:
            yield f"{keyword.arg}="


def traps(source: str) -> set[str]:
    """Return everything in a file that does not work alike on every system."""
    nodes = list(ast.walk(ast.parse(source)))
    return {*_partial_names(nodes), *_different_behavior(nodes)}


@pytest.mark.slow
def test_package_has_no_trap_without_a_fallback() -> None:
    found = {}
    for path in FILES:
        name = path.relative_to(ROOT).as_posix().removeprefix("glassworld/")
        if trapped := traps(path.read_text(encoding="utf-8")):
            found[name] = trapped
    assert found == WITH_FALLBACK


@pytest.mark.parametrize(
    ("source", "trap"),
    [
        ("import os\nos.fork()", "os.fork"),
        ("import os\nos.sched_getaffinity(0)", "os.sched_getaffinity"),
        ("import signal as s\ns.signal(s.SIGKILL, f)", "signal.SIGKILL"),
        ("from signal import SIGHUP", "signal.SIGHUP"),
        ("from fcntl import flock", "fcntl.flock"),
        ("import resource\nresource.getrusage(0)", "resource.getrusage"),
        ("import time\ntime.clock_gettime(0)", "time.clock_gettime"),
        ("loop.add_signal_handler(2, f)", "add_signal_handler()"),
        ("Path('/tmp/x')", "/tmp/x"),
        ("path.read_text()", "read_text() without encoding"),
        ("path.write_text(text)", "write_text() without encoding"),
        ("path.open()", "open() without encoding"),
        ("path.open('w', newline='')", "open() without encoding"),
        ("open(path)", "open() without encoding"),
        ("tempfile.TemporaryFile('w+')", "TemporaryFile() without encoding"),
        ("os.rename(a, b)", ".rename()"),
        ("tempfile.NamedTemporaryFile()", "NamedTemporaryFile()"),
        ("mimetypes.guess_type('a.js')", "mimetypes.guess_type()"),
        ("subprocess.run(x, preexec_fn=f)", "preexec_fn="),
        ("now.strftime('%-d')", "strftime()"),
    ],
)
def test_trap_is_found(source: str, trap: str) -> None:
    assert traps(source) == {trap}


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.replace(a, b)\nos.getpid()\nos.cpu_count()",
        "import signal\nsignal.signal(signal.SIGINT, f)",
        "path.read_text(encoding='utf-8')\npath.open('rb')\npath.open('w', encoding='utf-8')",
        "webbrowser.open(address)\nImage.open(file)\narchive.open(name)\nav.open(str(path), 'w')",
        '"""Reads /proc where there is one."""\n"a /proc in the middle"',
        "now.strftime('%Y-%m-%d')",
    ],
)
def test_portable_code_has_no_trap(source: str) -> None:
    assert traps(source) == set()


# The fallbacks


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the code believe that it runs on another system: of it, only the name and no files."""

    def become(name: str) -> None:
        monkeypatch.setattr(sys, "platform", name)
        is_file = Path.is_file
        monkeypatch.setattr(
            Path, "is_file", lambda path: not str(path).startswith("/proc") and is_file(path)
        )

    return become


@pytest.mark.parametrize("name", OTHER_SYSTEMS)
def test_memory_settings_of_glibc_are_left_alone_elsewhere(
    name: str, system: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    system(name)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("loaded a C library"))
    for variable in memory.ALLOCATOR:
        monkeypatch.delenv(variable, raising=False)
    memory.keep_freed_memory()
    memory.enlarge_device_memory()
    assert not any(variable in os.environ for variable in memory.ALLOCATOR)


def test_unknown_free_memory_refuses_no_world(system: Callable[[str], None]) -> None:
    cpu, huge = torch.device("cpu"), torch.nn.Linear(10**6, 10**7, device="meta")  # 40 TB
    networks: Any = SimpleNamespace(dit=huge, vision=huge, encoder=huge, decoder=huge)
    system("darwin")
    memory.check_memory(tiny.SPEC, networks, cpu, Precision.of(cpu, None))


@pytest.mark.parametrize("failure", [TypeError, OSError])
def test_trimming_memory_does_nothing_without_a_c_library(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: None) -> None:
        raise failure

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    _trim_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # a library without malloc_trim
    _trim_memory()


def test_uploads_are_decoded_without_limits_on_windows(
    system: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    system("win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails
    decoder._limit_process()


def test_uploads_are_decoded_where_address_space_takes_no_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resource = pytest.importorskip("resource")
    limited = []

    def set_limit(kind: int, limits: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        limited.append(kind)

    monkeypatch.setattr(resource, "setrlimit", set_limit)
    monkeypatch.setattr(os, "nice", lambda increment: None)
    decoder._limit_process()
    assert limited == [resource.RLIMIT_CPU]


def test_server_folder_works_without_file_locks(
    system: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system("win32")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"{PREFIX}other").mkdir()
    (tmp_path / f"{PREFIX}other" / "lock").write_text("1\n", encoding="utf-8")
    folder = ServerFolder()
    assert (tmp_path / f"{PREFIX}other").is_dir()  # its server may be running
    folder.close()
    assert not folder.path.exists()


def test_old_download_that_windows_keeps_open_stays_until_the_server_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("glassworld.play.downloads.MAX_FILES", 1)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(path)

    store = DownloadStore()
    paths = [store.new_path(name) for name in ("a.txt", "b.txt")]
    for path in paths:
        path.write_bytes(b"text")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        keys = [store.offer(path, path.name, "text/plain") for path in paths]
    assert store.get(keys[0].removeprefix("/files/")) is None
    assert store.get(keys[1].removeprefix("/files/")) is not None
    store.close()
    assert not any(path.exists() for path in paths)


def test_load_and_cores_are_unknown_where_the_system_does_not_tell(
    system: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    system("win32")
    for name in ("getloadavg", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    processor = collect_info()["processor"]
    assert processor["usable cores"] is None
    assert processor["load average"] is None
    assert load_average() is None


def test_peak_memory_is_unknown_on_windows(system: Callable[[str], None]) -> None:
    system("win32")
    assert _peak_bytes("cpu") is None


def test_peak_memory_is_counted_in_bytes_on_macos(
    system: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 * 2**20))
    system("darwin")
    assert _peak_bytes("cpu") == 3 * 2**20
    system("freebsd14")
    assert _peak_bytes("cpu") == 3 * 2**30


def test_cache_is_used_where_files_have_no_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "getuid", raising=False)
    folder = tmp_path / "compiled"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    _make_private(folder)


def test_benchmark_of_live_play_is_refused_without_figures_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "PROCESSES", tmp_path / "proc")
    with pytest.raises(InputError, match="measure live play on Linux"), check.serving(None, "cpu"):
        pass


def test_names_that_the_terminal_cannot_show_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = CpuTrace()
    with trace.tag("世界"):
        trace.op("aten::mm", 1000)
    path = write(tmp_path / "trace.json", trace.events)
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", narrow)
    assert main(["trace", "top", str(path)]) == 0
    narrow.flush()
    printed = narrow.buffer.getvalue().decode("cp1252")
    assert "\\u4e16" in printed
