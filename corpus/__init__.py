"""The model at work over many pages: LanceDB holds pages and vectors, Ray Data embeds beyond one machine.

``pip install 'finmatryoshka[corpus]'``. Pages come in through `pages`, become vectors in `embedding` (on one machine)
or `ray_engine` (on many), and lie in a `table` that `index` fills and `search` and `duplicates` read.
"""
