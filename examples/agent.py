# %% [markdown]
# # An agent in a world
# Run this file as it is, or cell by cell in an editor or a notebook.

# %%
import gymnasium
import numpy as np
from PIL import Image

import glassworld.gym  # noqa: F401 - registers the environment
from glassworld.engine.media.video import write_video

env = gymnasium.make("glassworld/World-v0", render_mode="rgb_array")
print("actions:", env.action_space)
print("observations:", env.observation_space.shape)

# %% Walk on until the picture hardly changes, then turn: a wall is a still picture.
frame, info = env.reset(seed=7)
walk = [info["frames"]]
turning = False
for block in range(12):
    action = {
        "keyboard": np.array([not turning, 0, 0, 0], np.int8),
        "mouse": np.array([0, 0.1 if turning else 0], np.float32),
    }
    frame, _, _, _, info = env.step(action)
    frames = info["frames"].astype(np.int16)
    change = float(np.abs(frames[-1] - frames[0]).mean())
    print(f"block {block}: {'turned' if turning else 'walked'}, change {change:.1f}")
    turning = not turning and change < 8
    walk.append(info["frames"])

# %% The walk as a video.
write_video("agent.mp4", np.concatenate(walk), env.metadata["render_fps"])
print("agent.mp4")

# %% The last frame of every block; a notebook shows it.
Image.fromarray(np.hstack([frames[-1] for frames in walk]))
