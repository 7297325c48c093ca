"""Sources are opened by name."""

import pytest

from glassworld.errors import InputError
from glassworld.training.sources import open_source


def test_open_source_with_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="no source 'golf'; choose one of maze, drive"):
        open_source("golf")
    with pytest.raises(InputError, match="no source 'drive:fast'; choose one of maze, drive"):
        open_source("drive:fast")
