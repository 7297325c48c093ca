"""The variants: found in their folder, and the same in the package, the docs and the flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassworld.engine.checkpoint.config import variant_spec
from glassworld.engine.checkpoint.options import FLAGS
from glassworld.engine.variants import registry
from glassworld.engine.variants.registry import ACTION_SPACES, VARIANTS, action_space
from glassworld.engine.variants.variant import Variant
from glassworld.errors import SpecError
from tests.support.paths import ROOT


def test_registry_holds_every_module_of_the_folder() -> None:
    folder = Path(registry.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "registry", "variant"}
    assert set(VARIANTS) == modules
    assert list(VARIANTS)[:3] == ["universal", "gta_drive", "templerun"]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_variant_settings_make_a_spec_of_its_space(variant: Variant) -> None:
    spec = variant_spec(variant.name)
    assert action_space(spec.mode) is ACTION_SPACES[variant.space.mode]
    assert spec.denoising_steps == variant.steps
    assert spec.dit.action.keyboard_dim == len(variant.space.keyboard)
    assert (spec.height, spec.width, spec.frames_per_block) == (352, 640, 3)
    assert spec.dit.window == (15 if variant.window < 0 else variant.window)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_variant_row_is_in_the_documentation(variant: Variant) -> None:
    assert variant.row in (ROOT / "docs" / "released-checkpoints.md").read_text().splitlines()


@pytest.mark.parametrize("mode", ACTION_SPACES)
def test_action_space_keys_are_in_the_documentation(mode: str) -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "actions.md").read_text().splitlines()
        if line.startswith(f"| `{mode}` |")
    ]
    space = ACTION_SPACES[mode]
    assert any(f"| {', '.join(space.keyboard)}" in row for row in rows)
    (keys,) = (row for row in rows if f" {space.controls[0].key.upper()} " in row)
    assert all(
        control.key.upper() in keys and control.name in keys
        for control in space.controls
        if control.name not in ("idle", "camera_idle")
    )


def test_variant_flag_names_every_variant() -> None:
    _, flag = FLAGS["variant"]
    assert all(name in flag.help for name in VARIANTS)


def test_action_space_of_an_unknown_mode_is_an_error_that_lists_the_modes() -> None:
    with pytest.raises(SpecError, match=r"tetris.*universal, gta_drive, templerun"):
        action_space("tetris")
