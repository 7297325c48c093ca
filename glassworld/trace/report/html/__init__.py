"""The HTML report: its page, the data in it, and the scripts that draw them."""
