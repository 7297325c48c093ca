"""Advice: one module per kind of rule. Importing the package registers the rules of all."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

for _module in sorted(iter_modules([str(Path(__file__).parent)]), key=lambda module: module.name):
    import_module(f"glassworld.trace.rules.{_module.name}")
