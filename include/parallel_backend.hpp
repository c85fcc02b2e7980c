// parallel_backend.hpp: libparallel_backend for C++17. Header-only, over <parallel_backend.h>.
//
//     pb::scope threads{"threading", {4}};        // this thread's maps run on 4 threads until the end of the
//     block std::vector<double> roots = pb::map(values, [](double v) { return std::sqrt(v); });
//     pb::for_each(rows, [&](std::size_t row) { smooth(image, row); });
//
//     try {
//         pb::for_each(files, compress);
//     } catch (const pb::task_error &failed) {    // which item, and what it threw
//         std::cerr << files[failed.index()] << ": " << failed.what() << '\n';
//     }
//
// A C++ callable uses the memory of the program that calls: maps of this header always pass
// PB_REQUIRE_SHAREDMEM, so under a backend of worker processes they run on "threading" instead, as joblib
// does for require="sharedmem". pb::map_bytes does not: its inputs and results are bytes, which can travel.
// Other tasks that can run in other processes are C functions for pb_parallel_map.
// Each callable is shared by all workers, never copied: calling it from several threads at once must be safe.
//
// No exception passes through the C library: what a callable throws is kept and thrown again by the function
// that the program called. Functions throw pb::error where the C function underneath fails.
#ifndef PARALLEL_BACKEND_HPP
#define PARALLEL_BACKEND_HPP

#include <parallel_backend.h>

#include <parallel_backend/bytes.hpp>
#include <parallel_backend/cpu.hpp>
#include <parallel_backend/error.hpp>
#include <parallel_backend/job.hpp>
#include <parallel_backend/join.hpp>
#include <parallel_backend/map.hpp>
#include <parallel_backend/phase.hpp>
#include <parallel_backend/reduce.hpp>
#include <parallel_backend/scope.hpp>
#include <parallel_backend/trace.hpp>

#endif
