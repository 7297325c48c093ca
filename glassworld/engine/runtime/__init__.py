"""The machine: devices, memory, threads and copies between host and device."""
