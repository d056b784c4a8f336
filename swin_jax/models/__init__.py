"""Linen modules: pictures to logits, maps and boxes. `registry` makes them by their published names."""
