"""The traces of four ranks that meet in two collectives."""

from tests.support.traces import CpuTrace, write

STARTS = {0: (2000.0, 9000.0), 1: (2500.0, 8000.0), 2: (4000.0, 12_000.0), 3: (2000.0, 8500.0)}
"""When each rank arrives at the two collectives, on one clock; microseconds."""

ENDS = (5000.0, 12_400.0)
BYTES = 1 << 20  # elements; of BFloat16


def rank_trace(folder, rank, on_kernel=True, sizes=True):
    """Write the trace of a rank: a tag of CPU work until each launch, then a collective."""
    clock = CpuTrace(base=1_000_000.0 + 777_000.0 * rank)  # every rank has its own clock
    for i, (start, end) in enumerate(zip(STARTS[rank], ENDS, strict=True)):
        with clock.tag("load_data"):
            clock.op("aten::copy_", start - 10 - clock.now if i == 0 else 100)
        with clock.tag("forward"):
            clock.op("aten::mm", start - 10 - clock.now)
        args = {
            "Collective name": ("allreduce", "_allgather_base")[i],
            "dtype": "BFloat16",
            "In msg nelems": BYTES // (1, 4)[i],
            "Out msg nelems": BYTES,
            "Group size": 4,
            "Process Group Name": "0",
        }
        args = args if sizes else {}
        if not on_kernel:
            clock.event("cpu_op", "record_param_comms", clock.now, 5, **args)
        clock.event("cuda_runtime", "cudaLaunchKernel", clock.now + 1, 2, correlation=i + 1)
        where = {"pid": 0, "tid": 7, "correlation": i + 1, "stream": 7, "device": 0}
        name = ("ncclDevKernel_AllReduce_Sum", "ncclDevKernel_AllGather")[i]
        clock.event("kernel", name, start, end - start, **where, **(args if on_kernel else {}))
        clock.now = end
    return write(folder / f"rank{rank}.json", clock.events, config=None)
