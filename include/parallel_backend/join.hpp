// Two branches of a recursion over C++ callables. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_JOIN_HPP
#define PARALLEL_BACKEND_JOIN_HPP

#include <parallel_backend.h>
#include <parallel_backend/error.hpp>

#include <cstdint>
#include <exception>
#include <functional>
#include <type_traits>

namespace pb {

namespace detail {

/// A callable as the C interface runs it, and what it threw.
template <class F> class branch {
  public:
    explicit branch(F &body) : body_(body) {}
    branch(const branch &) = delete;
    branch &operator=(const branch &) = delete;

    static std::int32_t run(void *self) noexcept {
        branch &own = *static_cast<branch *>(self);
        try {
            static_cast<void>(std::invoke(own.body_));
            return 0;
        } catch (...) {
            own.thrown_ = std::current_exception();
            return 1;
        }
    }

    void rethrow() const {
        if (thrown_) {
            std::rethrow_exception(thrown_);
        }
    }

  private:
    F &body_;
    std::exception_ptr thrown_;
};

} // namespace detail

/// Calls f() and g(), perhaps at the same time, and returns when both are over; what they return is ignored.
/// Made for recursion: see pb_join. The callables are used where they are, never copied.
///
/// Throws what f threw, if it threw, else what g threw: the exception itself, so that it passes through a
/// recursion unchanged. Both have run then. Throws error for every other failure.
template <class F, class G> void join(F &&f, G &&g) {
    detail::branch<std::remove_reference_t<F>> a(f);
    detail::branch<std::remove_reference_t<G>> b(g);
    const pb_status status = pb_join(a.run, &a, b.run, &b);
    if (status != PB_OK) {
        a.rethrow();
        b.rethrow();
        check(status);
    }
}

} // namespace pb

#endif
