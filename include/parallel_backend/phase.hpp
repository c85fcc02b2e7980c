// A time in which idle threads stay awake. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_PHASE_HPP
#define PARALLEL_BACKEND_PHASE_HPP

#include <parallel_backend.h>
#include <parallel_backend/error.hpp>

#include <cstdint>
#include <utility>

namespace pb {

/// Keeps idle threads of the backend "threading" awake, from construction until the end of the block, so that
/// each map finds them at hand however long ago the last one was:
///
///     pb::phase steps;
///     while (!done) {
///         pb::for_each(cells, advance);
///         exchange_borders();   // the threads wait for the next map meanwhile, and each uses a CPU for that
///     }
///
/// It belongs to the process, not to a thread: it may end on another thread, and others may be open as well.
class phase {
  public:
    /// `max_workers` is the number of workers of the largest map that is to come, the caller counted; 0: as
    /// many as a map would have here. Throws pb::error where the context cannot be used.
    explicit phase(std::int32_t max_workers = 0) { check(pb_phase_begin(max_workers, &token_)); }
    phase(phase &&other) noexcept : token_(std::exchange(other.token_, 0)) {}
    phase &operator=(phase &&) = delete;
    // A forked child has no phase to end.
    ~phase() {
        if (token_ != 0) {
            static_cast<void>(pb_phase_end(token_));
        }
    }

    /// Ends the phase now. Throws pb::error (PB_ERR_SCOPE) in a forked child. Does nothing the second time.
    void end() {
        if (token_ != 0) {
            check(pb_phase_end(std::exchange(token_, 0)));
        }
    }

  private:
    pb_scope token_ = 0;
};

} // namespace pb

#endif
