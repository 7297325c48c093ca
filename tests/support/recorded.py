"""Small recordings: videos whose frames tell their number, with actions beside them."""

import struct
from pathlib import Path

import av
import numpy as np

from glassworld.engine.actions.files import save_actions
from glassworld.engine.actions.track import ActionTrack
from glassworld.engine.variants.registry import action_space


def write_video(
    path: Path,
    frames: int,
    frame_rate: int,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 64),
) -> None:
    """Write frames whose brightness is their number, in a codec with frames out of order."""
    with av.open(str(path.absolute()), "w") as container:
        stream = container.add_stream(codec, rate=frame_rate)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "5", "bf": "3"}
        for number in range(frames):
            image = np.full((64, 96, 3), number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_recording(folder: Path, name: str, frames: int, frame_rate: int = 12) -> None:
    """Write a video and, as CSV, actions whose mouse turns further with every frame."""
    write_video(folder / f"{name}.mp4", frames, frame_rate)
    keyboard = np.zeros((frames, 2), np.float32)
    keyboard[:, 0] = np.arange(frames) % 10 == 3
    mouse = np.stack([np.zeros(frames), np.arange(frames) / 1000], 1).astype(np.float32)
    save_actions(folder / f"{name}.csv", ActionTrack(keyboard, mouse), action_space("gta_drive"))


def trim_start(source: Path, path: Path, seconds: float) -> None:
    """Write an MP4 without its first seconds, as players show it; its packets are copied whole."""
    with av.open(str(source)) as whole, av.open(str(path), "w") as trimmed:
        stream = whole.streams.video[0]
        target = trimmed.add_stream_from_template(stream)
        shift = round(seconds / stream.time_base)
        for packet in whole.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = target
                trimmed.mux(packet)


def lay_on_side(path: Path, height: int) -> None:
    """Let an MP4 of this height be shown turned clockwise by 90 degrees, as phones do."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # of the first version of the box
    one = 1 << 16
    turned = (0, one, 0, -one, 0, 0, height * one, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack(">9i", *turned)
    path.write_bytes(content)
