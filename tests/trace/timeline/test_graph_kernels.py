"""Kernels of replayed graphs get the tags of a pass that ran the same kernels without the graph."""

import gzip
import json
from collections import defaultdict

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.breakdown import layer_shares, transformer_shares
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.execution import slow_parts
from glassworld.trace.timeline.graph_kernels import AMBIGUOUS, NO_PASS, NO_TAGS, TOO_SHORT
from glassworld.trace.timeline.merged import MergedAnalysis
from tests.support.paths import SHARED
from tests.support.traces import GpuTrace, invoke, near, write

LAYERS = 3
CALL_US = 50


class GraphRun(GpuTrace):
    """A run whose passes are launched kernel by kernel, or as one graph.

    `truth` sums up the kernels' microseconds by layer and part, as they are written.
    """

    def __init__(self):
        super().__init__()
        self.truth: defaultdict[tuple[int, str], float] = defaultdict(float)
        self.passes = 0

    def kernels(self):
        """Return name, layer, part and duration of each kernel of the next pass."""
        self.passes += 1
        rows = [
            (name, layer, part, round(base + layer + 0.1 * self.passes, 3))
            for layer in range(LAYERS)
            for name, part, base in (
                ("gemm", "DiT_Self_Attention", 10),
                ("softmax", "DiT_Self_Attention", 5),
                ("gemm", "DiT_Feed_Forward", 20),
            )
        ]
        for _, layer, part, dur in rows:
            self.truth[layer, part] += dur
        return rows

    def eager(self, layer_tag="DiT_Layer_{}", outer="DiffusionModel_Forward"):
        open_tags: list = []

        def close(depth):
            while len(open_tags) > depth:
                open_tags.pop()[1].__exit__(None, None, None)

        with self.tag(outer):
            for name, layer, part, dur in self.kernels():
                for depth, wanted in enumerate((layer_tag.format(layer), part)):
                    if len(open_tags) <= depth or open_tags[depth][0] != wanted:
                        close(depth)
                        open_tags.append((wanted, self.tag(wanted)))
                        open_tags[-1][1].__enter__()
                self.launch(name, dur)
            close(0)

    def replay(self, kernels=None, call_us=CALL_US):
        self.correlation += 1
        args = {"correlation": self.correlation}
        self.event("cuda_runtime", "cudaGraphLaunch", self.now, call_us, **args)
        start = max(self.now + 5, self.free)
        for name, _, _, dur in kernels or self.kernels():
            self.event("kernel", name, start, dur, pid=0, tid=7, **args, stream=7, device=0)
            start += dur + 1
        self.free, self.now = start, self.now + call_us


def engine_passes(eager=1, replays=4):
    """Return a run that launches its first passes one by one and replays a graph after those."""
    run = GraphRun()
    with run.tag("2_Pipeline_Inference"):
        for block in range(eager + replays):
            with run.tag(f"2.3_Block_{block}"), run.tag("Generator_Forward"):
                if block < eager:
                    run.eager()
                else:
                    run.replay()
            run.wait(30)
    return run


def by_layer_and_part(analysis):
    sums: defaultdict[tuple[int, str], float] = defaultdict(float)
    for row in analysis.tags:
        if len(row.path) > 1 and row.path[-2].startswith("DiT_Layer_"):
            layer = int(row.path[-2].rpartition("_")[2])
            sums[layer, row.path[-1]] += 1000 * row.gpu_sum_ms
    return dict(sums)


@pytest.mark.parametrize("eager", [1, 2, 5])
def test_replays_have_the_tags_of_the_eager_pass(tmp_path, eager):
    run = engine_passes(eager)
    analysis = analyze(write(tmp_path / "t.json", run.events, config=None))
    assert by_layer_and_part(analysis) == pytest.approx(dict(run.truth))
    assert analysis.graphs.launches == 4
    assert analysis.graphs.kernels == 4 * 3 * LAYERS
    last = f"2.3_Block_{eager + 3}"
    paths = {row.path[1:] for row in analysis.tags if row.path[1:2] == (last,)}
    layer = (last, "Generator_Forward", "DiffusionModel_Forward", "DiT_Layer_2")
    assert (*layer, "DiT_Feed_Forward") in paths
    layers = [row for row in analysis.patterns if row.pattern == "DiT_Layer_{layer}"]
    assert sum(row.instances for row in layers) == (eager + 4) * LAYERS
    assert not analysis.clipped
    assert any("36 kernels of 4 replayed" in note for note in find_caveats(analysis))


def test_layers_and_parts_of_replays_add_up_to_the_busy_time(tmp_path):
    run = engine_passes()
    analysis = analyze(write(tmp_path / "t.json", run.events, config=None))
    assert analysis.gpu
    busy = analysis.gpu.busy_ns / 1e6
    assert sum(part.ms for part in transformer_shares(analysis)) == pytest.approx(busy)
    assert sum(layer.ms for layer in layer_shares(analysis)) == pytest.approx(busy)
    blocks = [row for row in analysis.tags if row.path[-1].startswith("2.3_Block_")]
    assert sum(row.gpu_busy_ms for row in blocks) == pytest.approx(busy)


def test_replays_in_chunks_have_the_figures_of_the_whole(tmp_path, small_chunks):
    run = engine_passes(replays=20)
    path = write(tmp_path / "t.json", run.events, config=None)
    whole = [vars(row) for row in analyze(path).tags]
    with small_chunks():
        chunked = analyze(path)
        assert isinstance(chunked, MergedAnalysis)
        rows = [vars(row) for row in chunked.tags]
    assert chunked.graphs.launches == 20
    assert rows == near(whole)
    assert by_layer_and_part(chunked) == pytest.approx(dict(run.truth))


def test_cpu_time_inside_a_graph_adds_up_to_its_call(tmp_path):
    analysis = analyze(write(tmp_path / "t.json", engine_passes().events, config=None))
    passes = [row for row in analysis.tags if row.path[-1] == "Generator_Forward"]
    replayed = [row for row in passes if not row.path[1].endswith("_0")]
    assert len(replayed) == 4
    for row in replayed:
        assert row.cpu_ms == pytest.approx(CALL_US / 1000)
        assert 0 < row.self_cpu_ms < row.cpu_ms


def replayed_alone(kernels=None, call_us=CALL_US):
    """Return a run of replays alone, as another engine's."""
    run = GraphRun()
    for _ in range(3):
        with run.tag("execute_model"):
            run.replay(kernels, call_us)
    return run


def test_capture_trace_names_the_kernels_of_another_trace(tmp_path):
    capture = GraphRun()
    with capture.tag("warm-up"):
        capture.launch("fill", 3)
        capture.eager()
    run = replayed_alone()
    path = write(tmp_path / "t.json", run.events, config=None)
    warm = write(tmp_path / "capture.json.gz", capture.events, config=None)
    assert not analyze(path).graphs.launches
    analysis = analyze(path, graph_capture=warm)
    assert by_layer_and_part(analysis) == pytest.approx(dict(run.truth))
    assert {row.path[:2] for row in analysis.tags} == {
        ("execute_model",),
        ("execute_model", "DiffusionModel_Forward"),
    }


def test_modules_of_the_capture_trace_are_slow_parts_of_the_replay(tmp_path):
    capture = GraphRun()
    capture.eager("nn.Module: Layer_{}", "nn.Module: Model_0")
    for event in capture.events:
        if event["name"].startswith("nn.Module"):
            event["cat"] = "python_function"
    run = replayed_alone()
    path = write(tmp_path / "t.json", run.events, config=None)
    warm = write(tmp_path / "capture.json", capture.events, config=None)
    analysis = analyze(path, graph_capture=warm)
    parts = {part.name: part for part in slow_parts(analysis)}
    assert parts["Layer"].count == 3 * LAYERS
    assert 1000 * parts["Layer"].self_ms == pytest.approx(sum(run.truth.values()))


def labeled_replays(keys=("str", "str", "annotation")):
    """Return replays whose kernels have labels, as torch merges those of a capture into a trace."""
    run = replayed_alone()
    truth: defaultdict[str, float] = defaultdict(float)
    kernels = [event for event in run.events if event["cat"] == "kernel"]
    for i, event in enumerate(kernels):
        label = ("embed", "layers", None)[min(i % (3 * LAYERS), 8) // 4]
        event["args"]["graph node id"] = (5 << 32) + i % (3 * LAYERS)
        if label:
            event["args"][keys[i % 3]] = label
            truth[label] += event["dur"]
    return run.events, dict(truth)


def test_labels_of_a_capture_name_kernels_where_no_pass_does(tmp_path):
    events, truth = labeled_replays()
    analysis = analyze(write(tmp_path / "t.json", events, config=None))
    rows = {row.path: row for row in analysis.tags}
    assert set(rows) == {("execute_model",), *(("execute_model", label) for label in truth)}
    for label, us in truth.items():
        row = rows["execute_model", label]
        assert row.instances == 3
        assert 1000 * row.gpu_sum_ms == pytest.approx(us)
    assert (analysis.graphs.launches, analysis.graphs.labeled) == (0, 3)
    assert not analysis.graphs.unnamed
    assert not analysis.modules
    (note,) = [note for note in find_caveats(analysis) if "GPU graphs" in note]
    assert "3 replayed GPU graphs have the labels" in note


def test_labels_outside_graphs_and_of_other_types_count_for_nothing(tmp_path):
    events, _ = labeled_replays()
    for event in events:
        if event["cat"] == "kernel":
            event["args"] |= {"graph node id": 0} if "str" in event["args"] else {"annotation": [1]}
    analysis = analyze(write(tmp_path / "t.json", events, config=None))
    assert reason(analysis) == {NO_PASS: 3}


def test_pass_outside_the_graph_goes_before_labels(tmp_path):
    run = engine_passes()
    for event in run.events:
        if event["cat"] == "kernel":
            event["args"] |= {"graph node id": 7, "str": "label"}
    analysis = analyze(write(tmp_path / "t.json", run.events, config=None))
    assert by_layer_and_part(analysis) == pytest.approx(dict(run.truth))
    assert analysis.graphs.labeled == 0


def test_labels_of_a_trace_in_chunks_are_those_of_the_whole(tmp_path, small_chunks):
    events, _ = labeled_replays()
    path = write(tmp_path / "t.json", events, config=None)
    whole = [vars(row) for row in analyze(path).tags]
    with small_chunks():
        chunked = analyze(path)
        assert isinstance(chunked, MergedAnalysis)
        assert [vars(row) for row in chunked.tags] == near(whole)
    assert chunked.graphs.labeled == 3


def reason(analysis):
    assert not analysis.graphs.launches
    assert all(row.path[0] in ("execute_model", "a") for row in analysis.tags)
    assert any("cannot be seen" in note for note in find_caveats(analysis))
    return dict(analysis.graphs.unnamed)


def changed(place, name="other"):
    kernels = GraphRun().kernels()
    kernels[place] = (name, *kernels[place][1:])
    return kernels


@pytest.mark.parametrize(
    "kernels",
    [changed(0), changed(4), changed(-1), [*GraphRun().kernels(), ("gemm", 0, "", 1.0)]],
    ids=["first", "middle", "last", "one more"],
)
def test_graph_with_another_kernel_gets_no_tags(tmp_path, kernels):
    capture = GraphRun()
    capture.eager()
    path = write(tmp_path / "t.json", replayed_alone(kernels).events, config=None)
    warm = write(tmp_path / "capture.json", capture.events, config=None)
    assert reason(analyze(path, graph_capture=warm)) == {NO_PASS: 3}


def test_graph_is_named_after_the_pass_in_the_same_tags(tmp_path):
    run = GraphRun()
    for outer in ("Generator_Forward", "Generator_Forward_Final"):
        with run.tag(outer):
            run.eager(outer=f"inside {outer}")
    for outer in ("Generator_Forward_Final", "Generator_Forward"):
        with run.tag(outer):
            run.replay()
    analysis = analyze(write(tmp_path / "t.json", run.events, config=None))
    rows = {row.path[:2]: row.instances for row in analysis.tags if len(row.path) == 2}
    assert rows == {
        ("Generator_Forward", "inside Generator_Forward"): 2,
        ("Generator_Forward_Final", "inside Generator_Forward_Final"): 2,
    }


def test_graph_that_fits_several_passes_gets_no_tags(tmp_path):
    capture = GraphRun()
    capture.eager()
    one_layer = [("gemm", 0, "", 4.0), ("softmax", 0, "", 4.0)]
    path = write(tmp_path / "t.json", replayed_alone(one_layer).events, config=None)
    warm = write(tmp_path / "capture.json", capture.events, config=None)
    capture.eager("Other_{}")
    others = write(tmp_path / "others.json", capture.events, config=None)
    whole = write(tmp_path / "whole.json", replayed_alone().events, config=None)
    assert analyze(path, graph_capture=warm).graphs.launches == 3  # of one kind of part
    assert reason(analyze(whole, graph_capture=others)) == {AMBIGUOUS: 3}


def test_graph_after_a_pass_without_tags_or_in_a_short_call_gets_none(tmp_path):
    capture = GraphRun()
    for name, *_, dur in capture.kernels():
        capture.launch(name, dur)
    warm = write(tmp_path / "bare.json", capture.events, config=None)
    path = write(tmp_path / "t.json", replayed_alone().events, config=None)
    assert reason(analyze(path, graph_capture=warm)) == {NO_TAGS: 3}
    tagged = GraphRun()
    tagged.eager()
    warm = write(tmp_path / "capture.json", tagged.events, config=None)
    path = write(tmp_path / "short.json", replayed_alone(call_us=0.02).events, config=None)
    assert reason(analyze(path, graph_capture=warm)) == {TOO_SHORT: 3}


def test_command_with_graph_capture_shows_layers(tmp_path):
    capture = GraphRun()
    capture.eager()
    path = write(tmp_path / "t.json", replayed_alone().events, config=None)
    warm = write(tmp_path / "capture.json", capture.events, config=None)
    plain = invoke("top", path, "--json")
    named = invoke("top", path, "--json", "--graph-capture", warm)
    assert "DiT_Self_Attention" not in plain.output
    assert "DiT_Self_Attention" in named.output
    report = invoke("report", path, "--graph-capture", warm, "--html", tmp_path / "page.html")
    assert report.exit_code == 0, report.output
    assert "DiT_Feed_Forward" in (tmp_path / "page.html").read_text(encoding="utf-8")
    missing = invoke("top", path, "--graph-capture", tmp_path / "none.json")
    assert missing.exit_code != 0


def test_capture_trace_that_names_nothing_says_why(tmp_path):
    other, graphs = GraphRun(), write(tmp_path / "t.json", replayed_alone().events, config=None)
    for _ in range(5):
        other.launch("another kernel", 10)
    warm = write(tmp_path / "capture.json", other.events, config=None)
    no_pass = "no pass outside a graph runs the same kernels in the same order"
    for command in (["top"], ["report", "--html", tmp_path / "page.html"]):
        result = invoke(command[0], graphs, *command[1:], "--graph-capture", warm)
        assert result.exit_code == 0
        assert no_pass in " ".join(result.output.split())
    warm.write_bytes(warm.read_bytes()[:-40])
    assert f"{warm}: the file ends in the middle" in invoke(
        "top", graphs, "--graph-capture", warm
    ).stderr.replace("note ", "")
    plain = write(tmp_path / "plain.json", other.events, config=None)
    result = invoke("top", plain, "--graph-capture", graphs)
    assert f"{graphs} names nothing: no GPU graph is replayed" in result.stderr


VLLM = SHARED / "traces" / "vllm-decode-cuda-graph.json.gz"
FIRST_OF_A_LAYER = "Rmsnorm2dFwd"


@pytest.mark.skipif(not VLLM.is_file(), reason="shared/traces is not here")
def test_replay_of_vllm_has_the_kernels_of_each_layer_of_a_capture_trace(tmp_path):
    events = json.loads(gzip.decompress(VLLM.read_bytes()))["traceEvents"]
    call = next(event for event in events if event.get("name") == "hipGraphLaunch")
    number = call["args"]["correlation"]
    ran = [
        event
        for event in events
        if event.get("cat") in ("kernel", "gpu_memcpy") and event["args"]["correlation"] == number
    ]
    ran.sort(key=lambda event: event["ts"])
    truth: defaultdict[str, list] = defaultdict(lambda: [0, 0.0])
    capture, layer = GpuTrace(), 0
    groups: list[list[dict]] = [[]]
    for event in ran:
        if FIRST_OF_A_LAYER in event["name"]:
            groups.append([])
        groups[-1].append(event)
    with capture.tag("model"):
        for layer, group in enumerate(groups):
            with capture.tag(f"part_{layer}"):
                for event in group:
                    capture.launch(event["name"], 1, cat=event["cat"])
                    truth[f"part_{layer}"][0] += 1
                    truth[f"part_{layer}"][1] += event["dur"] / 1000
    warm = write(tmp_path / "capture.json", capture.events, config=None)
    analysis = analyze(VLLM, graph_capture=warm)
    assert analysis.graphs.kernels == len(ran) == 421
    found = {
        row.path[-1]: [row.gpu_kernels, row.gpu_sum_ms]
        for row in analysis.tags
        if row.path[-1].startswith("part_")
    }
    assert len(groups) > 20
    assert found == near(dict(truth))
