"""What runs on a worker of the cluster: finds libparallel_backend and the task's libraries, and hands them chunks.

One file, standard library only: it is uploaded to clusters that do not have this package. Engines call `run_chunk` on the
worker's task threads, several at once, and the other functions (`put_files`, `cancel_call`, `running`, `drop_call`,
`set_share`) outside the queue of tasks, on any thread.

Failures are values, never exceptions: an exception would be retried, pickled or logged by the engine in its own way. What
comes back is a tuple whose first element says which it is:

    ("done", worker, reply)             the chunk's reply, bytes
    ("need", worker, [sha256, ...])     these files are not here: put_files, then run the chunk again; nothing has run
    ("cancelled", worker)               the call was cancelled before the chunk began
    ("error", worker, status, text)     the call cannot run on this worker: the name of a PB_ERR_ status, and why

`libparallel_backend` is loaded once for the life of the process, and never unloaded; nor are the libraries of tasks.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import socket
import stat
import sys
import tempfile
import threading

ABI_VERSION = 1


def _source_sha256():
    try:
        return hashlib.sha256(__spec__.loader.get_source(__name__).encode()).hexdigest()
    except Exception:  # no source: a frozen program, say
        return ""


# By which a session sees whether a cluster has this very file installed.
SOURCE_SHA256 = _source_sha256()
# A worker keeps so many ctxs of calls that nobody has ended (their bridge died, say).
CTX_KEPT = 8
# And so many numbers of calls that were cancelled.
CANCELLED_KEPT = 1024


class Trouble(Exception):
    """A failure on its way to becoming a value."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status, self.text = status, text


class Needed(Exception):
    """Files that are not here."""

    def __init__(self, wanted):
        super().__init__(str(wanted))
        self.wanted = wanted


class _State:
    """What the process keeps. `lock` guards all fields; it is not held while a library is loaded or a chunk runs."""

    def __init__(self):
        self.lock = threading.Lock()
        self.loading = threading.Lock()  # one thread looks for files and loads them, the others find it done
        self.library = None
        self.specs = {}
        self.loaded = set()
        self.hashes = {}
        self.at_once = None  # how many chunks may run on this machine at once; None where nobody has said
        self.ctxs = {}  # of calls, oldest first: the memory that a ctx lies in
        self.dropped = set()  # calls whose ctx is to go when no chunk uses it
        self.running = {}  # how many chunks of a call run here
        self.cancelled = {}  # calls, oldest first


# An upload of the same file again reloads this module: what is loaded stays known.
_state = globals().get("_state") or _State()


# ---- what engines call ------------------------------------------------------------------------------------------------


def run_chunk(spec, message, ctx=None):
    """Runs a chunk. `spec` is Call.spec; `ctx` the bytes of a ctx that is not inside the message."""
    worker = "?"
    try:
        worker = whereabouts()
        about = _spec(spec)
        library = _prepare(about)
        call = about["call"]
        if not _begin(call):
            return ("cancelled", worker)
        try:
            if about["has_ctx"]:
                _keep_ctx(library, call, ctx)
            return ("done", worker, library.run(message))
        finally:
            _end(call)
    except Needed as needed:
        return ("need", worker, needed.wanted)
    except Trouble as trouble:
        return ("error", worker, trouble.status, f"worker {worker}: {trouble.text}")
    except MemoryError:
        return ("error", worker, "PB_ERR_OUT_OF_MEMORY", f"worker {worker}: no memory for a chunk or its results")
    except Exception as error:  # a defect of ours: it must not look like a retry of the engine's
        return ("error", worker, "PB_ERR_INTERNAL", f"worker {worker}: {type(error).__name__}: {error}")


def put_files(files):
    """Stores files of a call, [(name, sha256, content)], in this worker's cache. Gives None, or (status, text)."""
    try:
        for name, sha256, content in files:
            _store(name, sha256, content)
    except Trouble as trouble:
        return (trouble.status, f"worker {whereabouts()}: {trouble.text}")
    return None


def cancel_call(call):
    """No chunk of the call starts any more here; those that run are told. Gives how many run."""
    with _state.lock:
        _state.cancelled[call] = True
        while len(_state.cancelled) > CANCELLED_KEPT:
            del _state.cancelled[next(iter(_state.cancelled))]
        library = _state.library
        count = _state.running.get(call, 0)
    if library is not None:
        library.cancel(call)
    return count


def running(call):
    """How many chunks of the call run in this process."""
    with _state.lock:
        return _state.running.get(call, 0)


def drop_call(call):
    """The call is over: its ctx goes, now or with the last chunk of it that runs here."""
    with _state.lock:
        if call in _state.ctxs:
            _state.dropped.add(call)
    _drop_idle()


def set_share(at_once):
    """Tells how many chunks may run on this worker's machine at once, on all of its workers: a chunk has its part of the CPUs."""
    with _state.lock:
        _state.at_once = at_once
        library = _state.library
    if library is not None:
        _share_cpus(library)


def whereabouts():
    """This worker's address, as people know it: the engine's own where it has one."""
    with contextlib.suppress(Exception):  # no worker of Dask's, whatever the reason
        return _dask_worker().address
    return f"{socket.gethostname()}:{os.getpid()}"


# ---- chunks -----------------------------------------------------------------------------------------------------------


def _spec(spec):
    spec = bytes(spec)
    known = _state.specs.get(spec)
    if known is None:
        with _state.lock:
            if len(_state.specs) > 64:
                _state.specs.clear()
            known = _state.specs[spec] = json.loads(spec)
    return known


def _begin(call):
    with _state.lock:
        if call in _state.cancelled:
            return False
        _state.running[call] = _state.running.get(call, 0) + 1
        return True


def _end(call):
    with _state.lock:
        left = _state.running[call] - 1
        if left:
            _state.running[call] = left
        else:
            del _state.running[call]
    if not left and _state.dropped:
        _drop_idle()


def _keep_ctx(library, call, ctx):
    """Makes a call's ctx known, once. Of others there may be CTX_KEPT: the oldest give way."""
    if call in _state.ctxs:
        return
    with _state.loading:
        if call in _state.ctxs:
            return
        if ctx is None:
            raise Trouble("PB_ERR_INTERNAL", "the call's ctx did not come with its chunk")
        memory = _aligned(ctx)
        library.put_ctx(call, memory)
        with _state.lock:
            _state.ctxs[call] = memory
            idle = [other for other in _state.ctxs if not _state.running.get(other)]
            _state.dropped.update(idle[: max(0, len(_state.ctxs) - CTX_KEPT)])
    _drop_idle()


def _drop_idle():
    """Forgets ctxs that are to be dropped and that no chunk uses. A chunk that begins from now on brings its own."""
    with _state.lock:
        idle = [call for call in _state.dropped if not _state.running.get(call)]
        for call in idle:
            _state.dropped.discard(call)
            if _state.ctxs.pop(call, None) is not None:
                _state.library.drop_ctx(call)


def _aligned(data):
    """A copy at an address that suits any type."""
    view = memoryview(data).cast("B")
    memory = bytearray(len(view) + 64)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % 64
    aligned = memoryview(memory)[start : start + len(view)]
    aligned[:] = view
    return aligned


# ---- the library ------------------------------------------------------------------------------------------------------


class Library:
    """libparallel_backend by ctypes. All calls are made with the interpreter lock released."""

    class _Bytes(ctypes.Structure):
        _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]

    def __init__(self, path, version):
        try:
            # Global: libraries of tasks that name no library of ours take its functions from here.
            c = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
            c.pb_abi_version.restype = ctypes.c_uint32
            c.pb_version.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise Trouble("PB_ERR_TASK_NOT_PORTABLE", f"libparallel_backend cannot be loaded: {error}") from None
        self.path, self.version = path, c.pb_version().decode()
        self._check(c.pb_abi_version(), version)
        size, pointer, status = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int32
        try:
            for name, restype, arguments in (
                ("pb_last_error", ctypes.c_char_p, []),
                ("pb_status_name", ctypes.c_char_p, [status]),
                ("pb_cpu_count", status, [status]),
                ("pb_worker_run", status, [pointer, size, ctypes.POINTER(pointer)]),
                ("pb_results_get", status, [pointer, size, ctypes.POINTER(self._Bytes)]),
                ("pb_results_free", None, [pointer]),
                ("pb_worker_set_cpus", status, [status]),
                ("pb_worker_load", status, [ctypes.c_char_p]),
                ("pb_worker_put_ctx", status, [ctypes.c_uint64, pointer, size]),
                ("pb_worker_drop_ctx", None, [ctypes.c_uint64]),
                ("pb_worker_cancel_call", None, [ctypes.c_uint64]),
            ):
                function = getattr(c, name)
                function.restype, function.argtypes = restype, arguments
        except AttributeError as error:
            raise Trouble("PB_ERR_ABI", f"'{path}' (version {self.version}) is too old for its caller: {error}") from None
        self._c = c

    def _check(self, abi, version):
        if abi != ABI_VERSION or self.version != version:
            raise Trouble(
                "PB_ERR_ABI",
                f"libparallel_backend {self.version} (ABI {abi}, '{self.path}') is loaded, the caller has {version} (ABI "
                f"{ABI_VERSION}): both need the same version; restart the workers, or install the caller's version there",
            )

    def check_version(self, version):
        self._check(self._c.pb_abi_version(), version)

    def _checked(self, status, what):
        if status != 0:
            name = self._c.pb_status_name(status).decode()
            text = (self._c.pb_last_error() or b"").decode("utf-8", "replace")
            raise Trouble(name, text or f"{what} failed ({name})")

    def cpu_count(self):
        return max(1, self._c.pb_cpu_count(0))

    def set_cpus(self, cpus):
        self._checked(self._c.pb_worker_set_cpus(cpus), "pb_worker_set_cpus")

    def load(self, path):
        self._checked(self._c.pb_worker_load(os.fsencode(path)), "pb_worker_load")

    def put_ctx(self, call, ctx):
        with _address(ctx) as (address, size):
            self._checked(self._c.pb_worker_put_ctx(call, address, size), "pb_worker_put_ctx")

    def drop_ctx(self, call):
        self._c.pb_worker_drop_ctx(call)

    def cancel(self, call):
        self._c.pb_worker_cancel_call(call)

    def run(self, message):
        results = ctypes.c_void_p()
        with _address(message) as (address, size):
            self._checked(self._c.pb_worker_run(address, size, ctypes.byref(results)), "pb_worker_run")
        try:
            reply = self._Bytes()
            self._checked(self._c.pb_results_get(results, 0, ctypes.byref(reply)), "pb_results_get")
            return ctypes.string_at(reply.data, reply.size) if reply.size else b""
        finally:
            self._c.pb_results_free(results)


@contextlib.contextmanager
def _address(data):
    """Address and size of bytes, which stay where they are inside the `with`. Copied only where Python gives no address."""
    view = memoryview(data).cast("B")
    if isinstance(data, bytes):
        yield ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data)
    elif view.readonly or not view.contiguous:
        copy = bytes(view)
        yield ctypes.cast(ctypes.c_char_p(copy), ctypes.c_void_p), len(copy)
    else:
        yield ctypes.addressof((ctypes.c_char * len(view)).from_buffer(view)), len(view)


def _prepare(about):
    """The library, with all files of the call loaded."""
    library = _state.library
    if library is not None and all(sha256 in _state.loaded for _, sha256, _ in about["files"]):
        library.check_version(about["version"])
        return library
    with _state.loading:
        library = _state.library
        if library is not None:
            library.check_version(about["version"])
        wanted = about["files"] if library is not None else [about["library"], *about["files"]]
        wanted = [file for file in wanted if file[1] not in _state.loaded]
        found = [(sha256, _find(name, sha256, path)) for name, sha256, path in wanted]
        missing = [sha256 for sha256, place in found if place is None]
        if missing:
            raise Needed(missing)
        for sha256, place in found:
            _check_machine(place)
            if _state.library is None:
                _state.library = Library(place, about["version"])
                _share_cpus(_state.library)
            else:
                _state.library.load(place)
            _state.loaded.add(sha256)
        return _state.library


def _share_cpus(library):
    """What a chunk's tasks own of this machine, for maps and native libraries inside them."""
    at_once = _state.at_once
    if at_once is None:
        with contextlib.suppress(Exception):
            at_once = _dask_worker().state.nthreads
    if at_once:
        library.set_cpus(max(1, library.cpu_count() // at_once))


def _dask_worker():
    """The Dask worker that this thread works for, or the only one in the process; or None."""
    module = sys.modules.get("distributed.worker")
    if module is None:
        return None
    try:
        return module.get_worker()
    except ValueError:
        workers = list(module.Worker._instances)
        return workers[0] if len(workers) == 1 else None


# ---- files ------------------------------------------------------------------------------------------------------------


def _find(name, sha256, path):
    """Where the file with these bytes lies here, or None: at the same path, or in the cache."""
    if os.path.isabs(path) and _hash(path) == sha256:
        return path
    place = os.path.join(_cache(), sha256, name)
    # Hashed anew, whatever is remembered: it is about to be loaded.
    return place if os.path.lexists(place) and _is_mine(place) and _hash(place, afresh=True) == sha256 else None


def _hash(path, afresh=False):
    """The hash of a file's bytes, or None where there is none. Remembered as long as the file looks the same."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            return None
        key = (path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
        known = _state.hashes.get(key)
        if known is None or afresh:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
            known = _state.hashes[key] = digest.hexdigest()
        return known
    except OSError:
        return None


def _cache():
    try:
        return os.path.join(tempfile.gettempdir(), f"pb-{os.getuid()}")
    except OSError as error:
        raise _no_cache("the directory for temporary files", error) from None


def _is_mine(path):
    """No link, and nobody else's."""
    about = os.lstat(path)
    return about.st_uid == os.getuid() and not stat.S_ISLNK(about.st_mode) and not about.st_mode & 0o022


def _own_directory(path):
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        if not (os.path.isdir(path) and _is_mine(path)):
            raise Trouble(
                "PB_ERR_IO",
                f"'{path}' belongs to another user, or others may write there: libraries are not stored in it. Remove it, or "
                "set TMPDIR for the worker",
            )
    except OSError as error:
        raise _no_cache(path, error) from None


def _no_cache(path, error):
    return Trouble(
        "PB_ERR_IO",
        f"a library cannot be stored in '{path}': {error.strerror}. The worker needs a directory that it can write to (set "
        "TMPDIR for it), or the library at the same path as in the calling process",
    )


def _store(name, sha256, content):
    """Writes a file to the cache: under another name first, so that no other process ever sees half of it."""
    if os.path.basename(name) != name or name in ("", ".", "..") or len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise Trouble("PB_ERR_INTERNAL", f"'{name}' is no name of a file")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Trouble("PB_ERR_IO", f"'{name}' arrived damaged: its sha256 is another")
    directory = os.path.join(_cache(), sha256)
    _own_directory(_cache())
    _own_directory(directory)
    temporary = os.path.join(directory, f".{os.getpid()}.{threading.get_ident()}")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
        try:
            with open(file, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.rename(temporary, os.path.join(directory, name))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _no_cache(directory, error) from None


def _elf(path):
    """(class, byte order, machine) of an ELF file, or None where it is none."""
    with open(path, "rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    return head[4], head[5], int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")


def _check_machine(path):
    try:
        theirs, ours = _elf(path), _elf("/proc/self/exe")
    except OSError:
        return  # no Linux: the loader will say
    if theirs != ours and ours is not None:
        what = f"for machine {theirs[2]}, {theirs[0] * 32} bits" if theirs is not None else "no ELF file"
        raise Trouble(
            "PB_ERR_TASK_NOT_PORTABLE",
            f"'{os.path.basename(path)}' is {what}; this worker is machine {ours[2]}, {ours[0] * 32} bits ({os.uname().machine}): "
            "build the library for it, and install it there at the same path",
        )
