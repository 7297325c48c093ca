"""The worlds that come with the package, a folder each."""
