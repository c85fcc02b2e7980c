"""The rows of dask. The hand-written client does what Dask's documentation advises: client.map, no purity assumed, gather."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import joblib
import raw
from dask_clusters import DaskCluster
from distributed import Client
from measure import Row, Setting
from ours import Library
from rows import Chunks
from rows import rows as measured


class DaskClient:
    def __init__(self, address: str, kernel: Path):
        self._client, self._kernel = Client(address), str(kernel)

    def burn(self, seconds: float, items: int, batch: int) -> None:
        begins, ends = zip(*raw.ranges(items, batch))
        same = [self._kernel] * len(begins), [seconds] * len(begins)
        raw.check(self._client.gather(self._client.map(raw.burn_range, *same, begins, ends, pure=False)), items)

    def joblib_two(self) -> None:
        with joblib.parallel_config("dask", client=self._client):
            joblib.Parallel()(joblib.delayed(raw.burn_range)(self._kernel, 0.0, i, i + 1) for i in range(2))

    def close(self) -> None:
        self._client.close()


def rows(setting: Setting) -> Iterator[Row]:
    library = Library(setting.prefix, setting.kernel)
    with contextlib.closing(DaskCluster(workers=2)) as cluster:
        address = cluster.address
        client, scope = DaskClient(address, setting.kernel), library.push("dask", f"address={address}")
        yield from measured("dask", library, client, Chunks(200, 0.050), setting.rounds)
        library.pop(scope)
        client.close()
