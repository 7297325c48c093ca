"""Serve many players on many workers: `glassworld serve`.

An ingress hands out tickets, a directory knows the workers and their seats, and each worker runs
the server of live play around one world. Players connect to the workers' own sockets.
"""
