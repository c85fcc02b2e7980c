// Failures of the C library as exceptions. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_ERROR_HPP
#define PARALLEL_BACKEND_ERROR_HPP

#include <parallel_backend.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>

namespace pb {

/// A call of the C library that failed. what() is its text: what was wrong, and what to do about it.
class error : public std::runtime_error {
  public:
    error(const pb_error_info &info, const std::string &text) : std::runtime_error(text), info_(info) {}

    /// The status that the C function returned, e.g. PB_ERR_TIMEOUT.
    pb_status status() const noexcept { return info_.status; }
    /// What the failed task returned; 0 where no task failed.
    std::int32_t task_code() const noexcept { return info_.task_code; }
    /// Which item failed; SIZE_MAX where the error concerns none.
    std::size_t index() const noexcept { return info_.task_index; }
    /// The signal that killed a lost worker; 0 where none did.
    std::int32_t signal() const noexcept { return info_.signal; }
    /// The exit code of a lost worker; -1 where there is none.
    std::int32_t exit_code() const noexcept { return info_.exit_code; }
    /// How many times the item was started.
    std::uint32_t attempts() const noexcept { return info_.attempts; }

  private:
    pb_error_info info_;
};

/// A callable threw. index() is its item and what() includes the text of its exception. The exception itself
/// is nested: std::rethrow_if_nested(error) or std::rethrow_exception(error.cause()) throws it. Construct it
/// only where the exception is being handled.
class task_error : public error, public std::nested_exception {
  public:
    using error::error;

    /// What the callable threw.
    std::exception_ptr cause() const noexcept { return nested_ptr(); }
};

/// Throws pb::error with this thread's last error if `status` is an error. Gives any other status back:
/// PB_OK, PB_PENDING or PB_DONE.
inline pb_status check(pb_status status) {
    if (status >= PB_OK) {
        return status;
    }
    pb_error_info info{};
    info.struct_size = sizeof info;
    const char *text = pb_last_error();
    if (pb_last_error_info(&info) != PB_OK || info.status != status) {
        // The last error of this thread is another one: nothing but the number is known.
        info = pb_error_info{};
        info.status = status;
        info.task_index = SIZE_MAX;
        info.exit_code = -1;
        text = "";
    }
    throw error(info, *text != '\0' ? text : pb_status_name(status));
}

} // namespace pb

#endif
