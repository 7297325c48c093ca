"""What torch.profiler records of the inputs of real operators on the CPU."""

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.profiler import ProfilerActivity, profile

from glassworld.trace.reading.categories import COUNTED_OPERATORS

PARTS = ("Input Dims", "Input type", "Input Strides", "Concrete Inputs")


def record_shapes(work, path):
    """Run a function, write its trace with shapes to `path`; return torch's FLOPs by operator."""
    with profile(
        activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True
    ) as profiler:
        work()
    profiler.export_chrome_trace(str(path))
    flops: Counter[str] = Counter()
    for event in profiler.events():
        flops[event.name] += event.flops or 0
    return flops


def recorded_calls(work, every=False):
    """Return the calls of counted operators, or `every` call, and torch's FLOPs by operator.

    A call has its operator and its inputs as the reader keeps them.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        flops = record_shapes(work, path)
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    calls = [
        (event["name"], json.dumps([event["args"].get(part) for part in PARTS]).encode())
        for event in events
        if event.get("cat") == "cpu_op" and (every or event["name"] in COUNTED_OPERATORS)
    ]
    return calls, flops
