"""Arrange the events of a trace in time: nest the tags and attribute GPU work to them."""
