"""A preload for Dask workers that are to have little memory."""

import resource

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
