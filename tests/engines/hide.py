"""A preload for Dask workers that are to have no files under the folders of PB_TEST_HIDE, as on another machine."""

import builtins
import os

HIDDEN = tuple(os.environ["PB_TEST_HIDE"].split(":"))


def _hiding(function):
    def hidden(path, *arguments, **more):
        if isinstance(path, str) and path.startswith(HIDDEN):
            raise FileNotFoundError(2, "hidden", path)
        return function(path, *arguments, **more)

    return hidden


os.stat, builtins.open = _hiding(os.stat), _hiding(builtins.open)
