from dask_clusters import wait_until
