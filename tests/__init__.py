"""The tests of `fconv_jax` and `experiments`, which they mirror file for file; helpers are modules here."""
