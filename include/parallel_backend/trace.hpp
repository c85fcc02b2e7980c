// The timeline of a block. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_TRACE_HPP
#define PARALLEL_BACKEND_TRACE_HPP

#include <parallel_backend.h>
#include <parallel_backend/error.hpp>

#include <string>
#include <utility>

namespace pb {

/// Records what every thread does, from construction until the end of the block, and writes it into a file
/// that Perfetto and `pb-info trace` open. The process has one timeline at a time:
///
///     pb::trace timeline("run.json");
///     pb::for_each(rows, smooth);
///     timeline.stop();   // or the end of the block, which says nothing of a file that could not be written
class trace {
  public:
    /// Makes the file. Throws pb::error where that fails, or while a timeline is recorded.
    explicit trace(const std::string &path) { check(pb_trace_start(path.c_str())); }
    trace(trace &&other) noexcept : running_(std::exchange(other.running_, false)) {}
    trace &operator=(trace &&) = delete;
    ~trace() {
        if (running_) {
            static_cast<void>(pb_trace_stop());
        }
    }

    /// Ends the timeline now and writes it. Throws pb::error where the file cannot be written, or where
    /// somebody else has ended the timeline. Does nothing the second time.
    void stop() {
        if (std::exchange(running_, false)) {
            check(pb_trace_stop());
        }
    }

  private:
    bool running_ = true;
};

} // namespace pb

#endif
