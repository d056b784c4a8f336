"""Host side of a run: read, decode, crop, resize, batch. NumPy, Pillow, OpenCV, Grain and tfds; never jax."""
