"""Suites of `swin_jax.benchmark`: figures of the whole project that anyone can measure again, and their ceilings."""
