"""Run the application of `glassworld.serve.deployment` on a local Ray Serve, in this process.

`python -m tests.support.ray_serve PORT ARGS`: ARGS are the `args` of a deployment file, as JSON. It
prints a line when the application runs, and ends when its standard input does.
"""

from __future__ import annotations

import json
import sys

from glassworld.serve.deployment import build
from glassworld.serve.ray_cluster import local_ray


def main() -> None:
    port, arguments = int(sys.argv[1]), json.loads(sys.argv[2])
    with local_ray(4):
        from ray import serve

        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build(arguments), name="glassworld", route_prefix="/")
        print("running", flush=True)
        sys.stdin.read()
        serve.shutdown()


if __name__ == "__main__":
    main()
