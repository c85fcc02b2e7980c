"""The rows of ray. The hand-written client does what Ray's documentation advises: remote tasks of one CPU, ray.get of all."""

import os
from collections.abc import Iterator
from pathlib import Path

import raw
from measure import Row, Setting
from ours import Library
from ray_clusters import RayCluster
from rows import Chunks
from rows import rows as measured


class RayClient:
    def __init__(self, address: str, kernel: Path):
        import ray
        from ray.util.joblib import register_ray

        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        register_ray()
        self._ray, self._kernel = ray, str(kernel)
        self._task = ray.remote(num_cpus=1)(raw.burn_range)

    def burn(self, seconds: float, items: int, batch: int) -> None:
        tasks = [self._task.remote(self._kernel, seconds, begin, end) for begin, end in raw.ranges(items, batch)]
        raw.check(self._ray.get(tasks), items)

    def joblib_two(self) -> None:
        import joblib

        with joblib.parallel_config("ray"):
            joblib.Parallel(n_jobs=2)(joblib.delayed(raw.burn_range)(self._kernel, 0.0, i, i + 1) for i in range(2))

    def close(self) -> None:
        self._ray.shutdown()


def rows(setting: Setting) -> Iterator[Row]:
    library = Library(setting.prefix, setting.kernel)
    with RayCluster() as cluster:
        os.environ.update(cluster.entry)
        client, scope = RayClient(cluster.address, setting.kernel), library.push("ray", f"address={cluster.address}")
        yield from measured("ray", library, client, Chunks(500, 0.010), setting.rounds)
        library.pop(scope)
        client.close()
