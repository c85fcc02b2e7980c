"""The Python side of libparallel_backend's engines: docs/bridge.md in its repository has the picture.

The library carries this package inside and hands it to the bridge it starts. It can also be installed, on a cluster's
scheduler and workers: then nothing need be uploaded to them.
"""
