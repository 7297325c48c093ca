"""Files of torch that are no traces are named as what they are."""

import pytest
import torch

from glassworld.errors import TraceError
from glassworld.trace.reading.reader import read_trace


def run():
    return torch.nn.Linear(3, 3)(torch.ones(2, 3)).sum().backward()


@pytest.mark.parametrize("tags_only", [True, False])
@pytest.mark.parametrize("ending", ["json", "json.gz", "raw.json.gz"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_memory_timeline_says_to_record_memory_in_a_trace(tmp_path, ending, tags_only):
    path = tmp_path / f"memory.{ending}"
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU],
        profile_memory=True,
        record_shapes=True,
        with_stack=True,
    ) as profiler:
        run()
    profiler.export_memory_timeline(str(path), device="cpu")
    with pytest.raises(TraceError, match=r"a memory timeline of torch.*profile_memory=True"):
        read_trace(path, tags_only=tags_only)


def test_execution_graph_says_to_record_a_trace(tmp_path):
    path = tmp_path / "graph.json"
    observer = torch.profiler.ExecutionTraceObserver().register_callback(str(path))
    observer.start()
    run()
    observer.stop()
    observer.unregister_callback()
    with pytest.raises(TraceError, match=r"ExecutionTraceObserver.*export_chrome_trace"):
        read_trace(path)
