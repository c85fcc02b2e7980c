"""The rows of dask: a hand-written client on the same cluster, whose tasks are chunks too, and joblib's backend."""

import joblib
import raw
from distributed import Client
from measure import Row, in_turn
from tiny import rows_of_tiny_items


class RawClient:
    """What its documentation advises: client.map with no purity assumed, then gather."""

    def __init__(self, address: str, kernel: str):
        self.client, self.kernel = Client(address), kernel

    def burn(self, seconds: float, items: int, batch: int) -> None:
        begins, ends = zip(*raw.ranges(items, batch))
        constant = [self.kernel] * len(begins), [seconds] * len(begins)
        futures = self.client.map(raw.burn_range, *constant, begins, ends, pure=False)
        raw.check(self.client.gather(futures), items)

    def joblib_two(self) -> None:
        with joblib.parallel_config("dask", client=self.client):
            joblib.Parallel()(joblib.delayed(raw.burn_range)(self.kernel, 0.0, i, i + 1) for i in range(2))

    def close(self) -> None:
        self.client.close()
