"""The language of the code: functions say in the imperative what they do; spelling is American."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

NO_VERB = re.compile(
    "An?|The|This|That|These|Those|Its?|Our|Their|My|One|Two|Not?|None|All|Any|Both|Each|Every|"
    "Some|Other|What|Whether|Which|Whose?|How|Where|When|While|If|Once|As|At|By|For|From|In|Into|"
    "Of|On|To|With|Without|And|Or|But|Also|Only|Then|There|True|False"
)
"""Words that begin a fragment or a clause. Rule D401 of ruff knows verbs in another form."""

# "labelledby" is HTML.
BRITISH = re.compile(
    r"\b\w*(?:"
    r"(?:synchron|quant|initial|normal|optim|serial|visual|organ|recogn|summar|minim|maxim|general)"
    r"is(?:e|ing|ation)|colour|behaviour|favour|neighbour|licence|centre|grey|artefact|labelled(?!by)"
    r")\w*",
    re.IGNORECASE,
)
KEPT = {
    "glassworld/training/data/latents.py": {"grey"},  # a tensor in files that training wrote
    "tests/training/data/test_latents.py": {"grey"},
    "glassworld/training/pipeline.py": {"normalised"},  # a file in folders that training wrote
    "tests/training/test_pipeline.py": {"normalised"},
}
"""By file: names in what earlier versions have written, which must stay readable."""

TEXT = {".py", ".md", ".js", ".css", ".html", ".toml", ".yaml", ".txt", ".svg", ""}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions and methods but properties, for which a noun is right."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = {ast.unparse(each).split(".")[-1] for each in node.decorator_list}
            if not decorators & {"property", "cached_property"}:
                yield node


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    wrong = []
    for path in sorted((ROOT / "glassworld").rglob("*.py")):
        for function in functions(ast.parse(path.read_bytes())):
            docstring = ast.get_docstring(function)
            first = docstring.split()[0].rstrip(".,:;") if docstring else "Return"
            if NO_VERB.fullmatch(first) or not re.fullmatch("[A-Z][a-z]+", first):
                where = f"{path.relative_to(ROOT)}:{function.lineno}"
                wrong.append(f"{where} {function.name}: {docstring}")
    assert not wrong, "\n".join(wrong)


def written_files() -> Iterator[Path]:
    """Yield the files that people read, except this one and the logs of measurements."""
    logs = [ROOT / "docs" / "lab", ROOT / "docs" / "measurements"]
    for path in ROOT.iterdir():
        if path.is_file():
            yield path
    for folder in ("glassworld", "tests", "examples", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path != Path(__file__) and not {*path.parents} & {*logs}:
                yield path


def test_spelling_is_american() -> None:
    wrong = []
    for path in sorted(written_files()):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in TEXT:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                words = set(BRITISH.findall(line)) - KEPT.get(name, set())
                wrong += [f"{name}:{number}: {word}" for word in sorted(words)]
    assert not wrong, "\n".join(wrong)
