// What this process may use, and the thread pools that it has loaded. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_CPU_HPP
#define PARALLEL_BACKEND_CPU_HPP

#include <parallel_backend.h>
#include <parallel_backend/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pb {

/// CPUs that this process may use, by affinity, cgroup limits and PB_MAX_CPU_COUNT; at least 1.
inline std::int32_t cpu_count(bool only_physical_cores = false) {
    return pb_cpu_count(only_physical_cores ? 1 : 0);
}

/// Workers that a map with this n_jobs would use on this thread now; 0 asks for the active scope's number.
inline std::int32_t effective_n_jobs(std::int32_t n_jobs = 0) { return pb_effective_n_jobs(n_jobs); }

/// A native thread pool that is loaded in this process. Texts that are not known are empty.
struct thread_pool {
    std::string user_api;        ///< "blas", "openmp" or "tbb"
    std::string internal_api;    ///< "openblas", "mkl", "blis", "flexiblas", "openmp", ...
    std::string prefix;          ///< start of the file name, e.g. "libopenblas"
    std::string filepath;        ///< the loaded file
    std::string version;         ///< of the library
    std::string threading_layer; ///< "pthreads", "openmp", "disabled", ...
    std::string architecture;    ///< the kernels that are used
    std::string scope;           ///< what setting its limit reaches: "thread", "process" or "shared-pool"
    std::int32_t num_threads;    ///< as the calling thread sees it
    bool controllable;           ///< whether pb::thread_limit can set it
};

/// The native thread pools that are loaded now, as the calling thread sees them.
inline std::vector<thread_pool> thread_pools() {
    const auto text = [](const char *c) { return std::string(c != nullptr ? c : ""); };
    std::vector<thread_pool> pools(pb_thread_pool_count());
    for (std::size_t i = 0; i < pools.size(); ++i) {
        pb_thread_pool c{};
        c.struct_size = sizeof c;
        check(pb_thread_pool_get(i, &c));
        pools[i] = {text(c.user_api), text(c.internal_api),    text(c.prefix),       text(c.filepath),
                    text(c.version),  text(c.threading_layer), text(c.architecture), text(c.scope),
                    c.num_threads,    c.controllable != 0};
    }
    return pools;
}

} // namespace pb

#endif
