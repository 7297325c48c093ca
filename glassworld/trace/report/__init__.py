"""The report: in the terminal, as one offline page, and as JSON."""
