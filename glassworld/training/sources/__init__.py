"""What worlds are learned from: simulators, each with the policies that act in it."""

from glassworld.training.sources.registry import open_source as open_source
from glassworld.training.sources.source import Source as Source
