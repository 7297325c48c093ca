"""Small recordings: videos whose frames tell their number, with actions beside them."""

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
    with av.open(str(path), "w") as container:
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
