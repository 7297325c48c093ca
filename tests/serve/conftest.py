"""The browser of the tests of live play."""

from tests.play.conftest import browser

__all__ = ["browser"]
