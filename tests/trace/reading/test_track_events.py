"""A Perfetto trace gives the figures of the torch trace of the same run."""

import zlib

import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.reading.reader import read_trace
from tests.support.other_formats import RUN, figures, write_track_events
from tests.support.protos import PERFETTO
from tests.support.traces import invoke, write


@pytest.fixture
def recorded(tmp_path):
    return write_track_events(tmp_path / "run.pftrace")


@pytest.mark.parametrize(
    "options", [{}, {"incremental_clock": True}, {"compressed": True}], ids=str
)
def test_perfetto_figures_equal_those_of_the_torch_trace(tmp_path, options):
    torch_run = analyze(write(tmp_path / "run.json", RUN, config=None))
    analysis = analyze(write_track_events(tmp_path / "run.pftrace", **options))
    assert figures(analysis) == figures(torch_run)
    assert analysis.coverage.gpu_ops == analysis.coverage.attributed == 12
    assert analysis.trace.losses == []


def test_perfetto_in_small_pieces_reads_the_same(recorded, small_pieces):
    assert len(read_trace(recorded).tags) == 9


def packets(path, *packets):
    trace = PERFETTO["Trace"]()
    for fields in packets:
        trace.packet.add(trusted_packet_sequence_id=3, **fields)
    path.write_bytes(trace.SerializeToString())
    return path


def slice_of(uuid, name, start, end, **fields):
    event = {"track_uuid": uuid, "type": 1, "name": name} | fields
    return (
        {"timestamp": start, "track_event": event},
        {"timestamp": end, "track_event": {"track_uuid": uuid, "type": 2}},
    )


def test_perfetto_tracks_without_known_categories_are_tags_or_gpu_operations(tmp_path):
    path = packets(
        tmp_path / "t.pftrace",
        {"track_descriptor": {"uuid": 1, "name": "game loop"}},
        {"track_descriptor": {"uuid": 2, "name": "GPU 0 queue"}},
        *slice_of(1, "frame", 1_000, 9_000, categories=["mine"]),
        *slice_of(2, "draw", 3_000, 5_000),
    )
    analysis = analyze(path)
    assert [(row.name, row.cpu_ms) for row in analysis.tags] == [("frame", 0.008)]
    assert analysis.gpu
    assert analysis.gpu.busy_ns == 2_000


def test_perfetto_flows_connect_launches_and_kernels(tmp_path):
    path = packets(
        tmp_path / "t.pftrace",
        {"track_descriptor": {"uuid": 1, "thread": {"pid": 5, "tid": 6}}},
        {"track_descriptor": {"uuid": 2, "name": "COMPUTE AGENT [1]"}},
        {"timestamp": 500, "track_event": {"track_uuid": 1, "type": 1, "name": "frame"}},
        *slice_of(1, "hipLaunchKernel", 1_000, 2_000, categories=["hip_api"], flow_ids=[9]),
        {"timestamp": 4_000, "track_event": {"track_uuid": 1, "type": 2}},
        *slice_of(2, "gemm", 3_000, 5_000, categories=["kernel_dispatch"], flow_ids=[9]),
    )
    analysis = analyze(path)
    assert (analysis.coverage.gpu_ops, analysis.coverage.attributed) == (1, 1)


def test_perfetto_incremental_clock_moves_with_packets_without_events(tmp_path):
    clocks = [
        {"clock_id": 6, "timestamp": 1_000},
        {"clock_id": 64, "timestamp": 0, "is_incremental": True},
    ]
    path = packets(
        tmp_path / "t.pftrace",
        {
            "trace_packet_defaults": {"timestamp_clock_id": 64},
            "clock_snapshot": {"clocks": clocks},
        },
        {"timestamp": 500, "track_descriptor": {"uuid": 1, "name": "game loop"}},
        *slice_of(1, "frame", 0, 2_000),
    )
    tags = read_trace(path).tags
    assert (tags["start"].tolist(), tags["dur"].tolist()) == ([1_500], [2_000])


def test_perfetto_cut_short_keeps_what_was_read(recorded):
    content = recorded.read_bytes()
    recorded.write_bytes(content[: len(content) * 2 // 3])
    trace = read_trace(recorded)
    assert len(trace.device_ops) >= 4
    assert any("cut short" in loss for loss in trace.losses)


def test_perfetto_open_slices_are_counted(tmp_path):
    path = packets(
        tmp_path / "t.pftrace",
        *slice_of(1, "frame", 1_000, 9_000),
        slice_of(1, "open", 9_500, 0)[0],
        slice_of(2, "", 0, 9_600)[1],
    )
    trace = read_trace(path)
    assert len(trace.tags) == 1
    assert trace.losses == [
        "1 slices never end and were left out",
        "1 slices ended that never began",
    ]


def test_perfetto_without_track_events_is_one_clear_line(tmp_path):
    path = packets(tmp_path / "t.pftrace", {"timestamp": 5}, {"timestamp": 6})
    with pytest.raises(TraceError, match="its 2 packets hold no track events"):
        read_trace(path)
    assert invoke("top", path).exit_code != 0


def test_perfetto_compressed_packets_within_others_are_left_out(tmp_path):
    path = packets(tmp_path / "t.pftrace", *slice_of(1, "frame", 1_000, 9_000))
    content = path.read_bytes()
    for _ in range(2_000):
        packet = PERFETTO["TracePacket"](compressed_packets=zlib.compress(content))
        content = PERFETTO["Trace"](packet=[packet]).SerializeToString()
    path.write_bytes(content)
    with pytest.raises(TraceError, match="1 packets could not be read"):
        read_trace(path)


@pytest.mark.parametrize(
    ("device", "value", "totals"),
    [
        ("0", 5.0, [5]),
        ("-1", 5.0, [5]),
        ("0", float("nan"), []),
        ("²", 5.0, []),
        ("9" * 5_000, 5.0, []),
    ],
    ids=["gpu", "cpu", "nan", "no number", "huge"],
)
def test_perfetto_memory_counter_without_a_number_is_left_out(tmp_path, device, value, totals):
    counter = {"track_uuid": 2, "type": 4, "double_counter_value": value}
    path = packets(
        tmp_path / "t.pftrace",
        {"track_descriptor": {"uuid": 2, "name": f"Allocated bytes, device {device}"}},
        {"timestamp": 2_000, "track_event": counter},
        *slice_of(1, "frame", 1_000, 9_000),
    )
    assert read_trace(path).memory.to_array()["total"].tolist() == totals


def test_perfetto_damaged_byte_never_ends_in_a_traceback(recorded):
    content = recorded.read_bytes()
    for at in range(0, len(content), 61):
        recorded.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            read_trace(recorded)
        except TraceError as error:
            assert str(error).startswith(str(recorded))  # noqa: PT017
