"""Draw a view of the course: flat polygons in perspective under a panorama, without any asset.

Quads are projected together in numpy and drawn from far to near by Pillow, at three times the size.
Averaging that down gives smooth edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from glassworld.training.sources.runner.camera import SCALE, Camera
from glassworld.training.sources.runner.figure import draw_runner, draw_shadow
from glassworld.training.sources.runner.motion import RunnerView
from glassworld.training.sources.runner.palette import SKIES
from glassworld.training.sources.runner.panorama import draw_panorama, sky_image
from glassworld.training.sources.runner.scenery import floor_quads, upright_quads

_NEARER = 1.3
"""How much nearer the runner counts when the order of drawing is chosen.

Less than half a cell: a beam that the runner has passed hides it, the wall beside it does not.
"""


def render(view: RunnerView) -> NDArray[np.uint8]:
    """Draw a view: uint8 [64, 96, 3], RGB. The seed of its course chooses the sky."""
    sky, camera = SKIES[view.state.seed % len(SKIES)], Camera(view)
    image = sky_image(sky, camera.horizon)
    draw = ImageDraw.Draw(image)
    draw_panorama(draw, sky, camera.azimuth, camera.horizon)
    for polygon in camera.project(floor_quads(view.state, sky), sky.low):
        draw.polygon(polygon.outline, fill=polygon.color)
    draw_shadow(draw, camera, view, sky.joint)
    standing = camera.project(upright_quads(view.state, view.fallen), sky.low)
    standing.sort(key=lambda polygon: -polygon.distance)
    runner = camera.distance(view.x, view.z) - _NEARER
    behind = sum(polygon.distance >= runner for polygon in standing)
    for polygon in standing[:behind]:
        draw.polygon(polygon.outline, fill=polygon.color)
    draw_runner(draw, camera, view)
    for polygon in standing[behind:]:
        draw.polygon(polygon.outline, fill=polygon.color)
    return np.array(image.reduce(SCALE))
