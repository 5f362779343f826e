"""Measures any model folder or Hub id at every dimension, always beside the trivial answer."""
