"""Shared helpers of the tests: small worlds, releases, servers and traces."""
