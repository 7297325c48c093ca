"""Sessions that outlive a connection: as bytes for a file, another server or a later connection."""
