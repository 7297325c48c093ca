"""Captured passes in recorded runs; without a GPU, a captured pass is the call itself."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import torch

from glassworld import profile
from glassworld.engine.cuda_graphs import FIRST_CAPTURED, PassGraphs, capture_stream
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.profiling.tags import recording_number


class Decoder:
    """Remembers the storage of each latent frame that it decodes."""

    def __init__(self):
        self.seen: list[int] = []

    def decode_frame(self, x, memory):
        self.seen.append(x.data_ptr())
        return x * 2


def test_first_frame_of_each_recording_is_decoded_outside_the_graph(tmp_path):
    graphs, decoder, memory = PassGraphs(torch.device("cpu")), Decoder(), FeatureCache(first=False)

    def outside(frames):
        """Decode frames; return which of them were decoded from their own storage."""
        own = []
        for _ in range(frames):
            x = torch.rand(1, 2)
            assert torch.equal(graphs.frame(decoder, x, memory), x * 2)  # type: ignore[arg-type]
            own.append(decoder.seen[-1] == x.data_ptr())
        return own

    assert outside(FIRST_CAPTURED - 1) == [True] * (FIRST_CAPTURED - 1)
    assert outside(3) == [False] * 3
    for name in ("a.json", "b.json"):
        with profile(tmp_path / name, mode="tags"):
            assert outside(3) == [True, False, False]
        assert outside(2) == [False, False]


def test_recording_number_counts_recordings(tmp_path):
    assert recording_number() == 0
    numbers = []
    for name in ("a.json", "b.json"):
        with profile(tmp_path / name, mode="tags"):
            numbers.append(recording_number())
        assert recording_number() == 0
    assert 0 < numbers[0] < numbers[1]


def test_passes_of_each_device_are_captured_on_a_stream_of_that_device(monkeypatch):
    streams = []

    @contextmanager
    def capture(graph, pool=None, stream=None, **_):
        streams.append(stream)
        yield

    fakes = {
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "Stream": str,
        "device": nullcontext,
        "graph": capture,
        "graph_pool_handle": object,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    capture_stream.cache_clear()
    for device in ("cuda:0", "cuda:1", "cuda:0"):
        graphs, memory = PassGraphs(torch.device(device)), FeatureCache(first=False)
        for _ in range(FIRST_CAPTURED):
            graphs.frame(Decoder(), torch.rand(1, 2), memory)  # type: ignore[arg-type]
    capture_stream.cache_clear()
    assert streams == ["cuda:0", "cuda:1", "cuda:0"]
