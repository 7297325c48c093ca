# %% [markdown]
# # An agent in a world
# Run this file as it is, or cell by cell in an editor or a notebook.

# %%
import gymnasium
import numpy as np
from PIL import Image

import glassworld.gym  # noqa: F401 - registers the environments
from glassworld.engine.media.video import write_video

env = gymnasium.make("glassworld/maze-v0", render_mode="rgb_array")
print("actions:", env.action_space)
print("observations:", env.observation_space.shape)

# %% Walk until the frames hardly change, which means a wall; then turn.
frame, info = env.reset(seed=7)
blocks = [info["frames"]]
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
    blocks.append(info["frames"])

# %% Write the session as a video.
write_video("agent.mp4", np.concatenate(blocks), env.unwrapped.world.spec.frame_rate)
print("agent.mp4")

# %% Show the last frame of every block, in a notebook.
Image.fromarray(np.hstack([frames[-1] for frames in blocks]))
