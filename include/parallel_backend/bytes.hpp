// Maps from bytes to bytes, of any size, on any backend. Included by <parallel_backend.hpp>.
#ifndef PARALLEL_BACKEND_BYTES_HPP
#define PARALLEL_BACKEND_BYTES_HPP

#include <parallel_backend/map.hpp>

#include <cstddef>
#include <iterator>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace pb {

/// The results of map_bytes, in the order of the inputs. Owns the bytes.
class bytes_results {
  public:
    bytes_results(pb_results *results, std::size_t size) noexcept : results_(results), size_(size) {}

    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }

    /// The bytes of a result, valid as long as this object. Throws error for an index that there is not.
    std::string_view operator[](std::size_t index) const {
        pb_bytes bytes{};
        check(pb_results_get(results_.get(), index, &bytes));
        return {static_cast<const char *>(bytes.data), bytes.size};
    }

  private:
    struct free {
        void operator()(pb_results *results) const noexcept { pb_results_free(results); }
    };
    std::unique_ptr<pb_results, free> results_;
    std::size_t size_;
};

namespace detail {

template <class T>
using element_t = std::remove_cv_t<std::remove_reference_t<decltype(*std::data(std::declval<T &>()))>>;

/// The bytes of a contiguous object: a string, a vector of plain values.
template <class T> pb_bytes bytes_of(const T &object) noexcept {
    static_assert(std::is_trivially_copyable_v<element_t<const T>>,
                  "elements that are not plain bytes cannot travel");
    return {std::data(object), std::size(object) * sizeof(element_t<const T>)};
}

} // namespace detail

/// Calls f(bytes) with the bytes of each input, as a std::string_view, in parallel, and collects the bytes of
/// what it returns: a std::string, a std::vector of plain values, anything with data() and size(). Inputs are
/// the same: strings, vectors of plain values.
///
/// It runs on worker processes too, where what f throws comes back as a task_error with its text. On
/// "multiprocessing" f may be any callable; changes that it makes to its own state stay in the worker.
template <class Inputs, class F, detail::if_contiguous<const Inputs> = 0>
bytes_results map_bytes(const Inputs &inputs, F &&f, const options &settings = {}) {
    const std::size_t n = std::size(inputs);
    std::vector<pb_bytes> views;
    views.reserve(n);
    for (const auto &input : inputs) {
        views.push_back(detail::bytes_of(input));
    }
    auto body = [&f](std::size_t, const void *input, std::size_t size, pb_output *output) {
        const auto result = std::invoke(f, std::string_view(static_cast<const char *>(input), size));
        const pb_bytes bytes = detail::bytes_of(result);
        check(pb_output_write(output, bytes.data, bytes.size));
    };
    detail::call<decltype(body)> call(body, settings);
    pb_results *results = nullptr;
    const pb_status status = call.run_bytes(n, views.data(), &results);
    bytes_results owned(results, n);
    call.finish(status);
    return owned;
}

} // namespace pb

#endif
