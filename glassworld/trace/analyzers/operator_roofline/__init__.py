"""The roofline of single operators, by the shapes of their recorded inputs."""
