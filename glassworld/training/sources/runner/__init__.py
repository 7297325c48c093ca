"""The runner's world: its course and rules, its motion, its pictures, and who plays it."""
