// Choices that hold until the end of a block. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_SCOPE_HPP
#define PARALLEL_BACKEND_SCOPE_HPP

#include <parallel_backend.h>
#include <parallel_backend/error.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace pb {

namespace detail {

/// Owns a scope token of the C library. `Pop` is the function that ends the scope.
template <pb_status (*Pop)(pb_scope)> class scope_guard {
  public:
    // An assigned scope would have to end below the one that replaces it.
    scope_guard &operator=(scope_guard &&) = delete;

    /// Ends the scope now. Throws pb::error (PB_ERR_SCOPE) on another thread or while an inner scope is open:
    /// then nothing has changed. Does nothing if the scope was ended or moved away.
    void pop() {
        if (token_ != 0) {
            check(Pop(token_));
            token_ = 0;
        }
    }

  protected:
    scope_guard() = default;
    scope_guard(scope_guard &&other) noexcept : token_(std::exchange(other.token_, 0)) {}
    // A scope that cannot end here (another thread, an inner scope still open) stays as it is.
    ~scope_guard() {
        if (token_ != 0) {
            static_cast<void>(Pop(token_));
        }
    }

    pb_scope token_ = 0;
};

} // namespace detail

/// How a backend is to be used. Zero and empty mean "not given".
struct backend_options {
    /// Workers; negative as in joblib: -1 all CPUs, -2 all but one. 0: all, or inherited where no backend is
    /// named.
    std::int32_t n_jobs = 0;
    /// BLAS and OpenMP threads inside each task; 0: the worker's share of the CPUs.
    std::int32_t inner_max_num_threads = 0;
    /// The backend's own settings, "key=value;key=value".
    std::string params = {};
};

/// The choice of backend on this thread, from construction until the end of the block. Belongs to the thread
/// that made it: end it there, innermost first.
class scope : public detail::scope_guard<pb_pop_backend> {
  public:
    /// `backend` is a name such as "threading"; nullptr keeps the enclosing choice and changes only the
    /// options.
    explicit scope(const char *backend, const backend_options &settings = {}) {
        const char *params = settings.params.empty() ? nullptr : settings.params.c_str();
        check(pb_push_backend(backend, settings.n_jobs, settings.inner_max_num_threads, params, &token_));
    }

  private:
    friend class context;
    explicit scope(const pb_context *context) { check(pb_context_attach(context, &token_)); }
};

/// A limit on the threads of the native pools (OpenBLAS, MKL, OpenMP, ...), until the end of the block.
class thread_limit : public detail::scope_guard<pb_pop_thread_limit> {
  public:
    /// `user_api` is PB_API_ALL or one or more of PB_API_BLAS, PB_API_OPENMP and PB_API_TBB.
    explicit thread_limit(std::int32_t limit, std::uint32_t user_api = PB_API_ALL) {
        check(pb_push_thread_limit(limit, user_api, &token_));
    }
};

/// A thread's choice of backend, for a thread that the library did not start:
///
///     std::thread worker([context = pb::context::capture()] { auto scope = context.attach(); ... });
///
/// Copies share what was captured. Any thread may use it.
class context {
  public:
    /// The choice in force on the calling thread now.
    static context capture() {
        pb_context *captured = pb_context_capture();
        if (captured == nullptr) {
            check(PB_ERR_OUT_OF_MEMORY);
        }
        return context(captured);
    }

    /// Puts the choice in force on the calling thread, until the end of the scope that this returns.
    [[nodiscard]] scope attach() const { return scope(captured_.get()); }

  private:
    explicit context(pb_context *captured) : captured_(captured, pb_context_free) {}
    std::shared_ptr<const pb_context> captured_;
};

} // namespace pb

#endif
