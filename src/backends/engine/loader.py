# Reads the bridge's modules from a descriptor, as {name: source}, and runs the bridge. `python -c` has this text.
import ctypes, importlib.abc, importlib.util, json, os, signal, socket, sys

ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: when the user's process dies, and its end of the socket lives on in a fork

if sys.path[:1] == [""]:
    del sys.path[0]  # a file dask.py in the user's folder is not Dask


def take(sock, size):
    data = bytearray()
    while len(data) < size:
        some = sock.recv(min(size - len(data), 1 << 16))
        if not some:
            sys.exit("the stream of modules has ended early")
        data += some
    return data


class Sources(importlib.abc.InspectLoader, importlib.abc.MetaPathFinder):
    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self, origin=f"<{name}>") if name in self.sources else None

    def is_package(self, name):
        return any(other.startswith(name + ".") for other in self.sources)

    def get_source(self, name):
        return self.sources[name]

    def get_code(self, name):
        return compile(self.sources[name], f"<{name}>", "exec", dont_inherit=True)


def close_others(fd):
    # What the user's process has open, perhaps long deleted or an end of a pipe, would stay open as long as the bridge.
    for other in map(int, os.listdir("/proc/self/fd")):
        if other > fd:
            try:
                os.close(other)
            except OSError:
                pass  # the listing's own


fd = int(sys.argv[1])
close_others(fd)
sock = socket.socket(fileno=fd)
size = int.from_bytes(take(sock, 8), "little")
sys.meta_path.insert(0, Sources(json.loads(take(sock, size))))
sock.detach()
from parallel_backend_engine.bridge import main

sys.exit(main(fd))
